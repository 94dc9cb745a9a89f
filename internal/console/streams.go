package console

import "sync"

const (
	// maxStreams limits the pages that are kept up to date, of a process.
	maxStreams = 100
	// maxSessionStreams limits those of one session.
	maxSessionStreams = 6
)

// streams counts the pages that are kept up to date, by session.
type streams struct {
	mu   sync.Mutex
	all  int
	open map[string]int
}

// start reports whether a session may keep one more page up to date. If so, end must follow.
func (s *streams) start(session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.open[session] >= maxSessionStreams {
		return false
	}
	if s.open == nil {
		s.open = make(map[string]int)
	}
	s.all++
	s.open[session]++
	return true
}

func (s *streams) end(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[session]--; s.open[session] == 0 {
		delete(s.open, session)
	}
}
