package coalesce

import "runtime"

// AwaitWaiting returns once so many calls wait.
func (g *Group[K, T]) AwaitWaiting(key K, n int) {
	for {
		g.mu.Lock()
		l := g.lanes[key]
		there := l != nil && len(l.waiting) == n
		g.mu.Unlock()
		if there {
			return
		}
		runtime.Gosched()
	}
}
