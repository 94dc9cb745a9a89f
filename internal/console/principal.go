package console

import (
	"cmp"
	"net/url"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/directory"
)

// principalsView is the search for a person or an agent.
type principalsView struct {
	Name  string
	Found []directory.Named
}

func principals(q request) (any, error) {
	v := principalsView{Name: q.URL.Query().Get("name")}
	if v.Name == "" {
		return v, nil
	}
	var err error
	v.Found, err = list[directory.Named](q, q.of("/principals?"+url.Values{"name": {v.Name}}.Encode()))
	return v, err
}

// principalView is the page of a person or an agent.
type principalView struct {
	api.Shown
	Graph graph
}

// Title implements [titled].
func (v principalView) Title() string { return cmp.Or(v.Name, v.ID.String()) }

// More reports whether there may be more credentials than the page shows.
func (v principalView) More() bool { return len(v.Credentials) == api.MaxShown }

// Live implements [live].
func (principalView) Live() bool { return true }

func principal(q request) (any, error) {
	shown, err := get[api.Shown](q, q.of("/principals/"+url.PathEscape(chi.URLParam(q.Request, "id"))))
	if err != nil {
		return nil, err
	}
	return principalView{shown, newGraph(shown.Named, shown.Agents, shown.Parents)}, nil
}

func plan(q request) (any, error) {
	return get[api.Plan](q, q.of("/principals/"+url.PathEscape(chi.URLParam(q.Request, "id"))+"/plan"))
}

// maxGraph limits the agents in a graph.
const maxGraph = 40

// graph is a tree of a principal and the agents that end with it.
type graph struct {
	Nodes         []node
	More          int // agents that are left out
	Width, Height int
}

// node is a principal in a graph, with the line from the one it depends on.
type node struct {
	directory.Named
	X, Y         int
	FromX, FromY int // 0, 0 for the first
}

// The distances of a graph, in SVG units.
const (
	graphStep = 230
	graphRow  = 44
)

// newGraph lays out agents in rows, each below the agent that is its parent, or below the principal.
func newGraph(of directory.Named, agents []directory.Named, parents map[uuid.UUID]uuid.UUID) graph {
	g := graph{More: max(0, len(agents)-maxGraph)}
	agents = agents[:min(len(agents), maxGraph)]
	known := make(map[uuid.UUID]bool)
	for _, a := range agents {
		known[a.ID] = true
	}
	placed := make(map[uuid.UUID]bool)
	var place func(n directory.Named, depth int, from *node)
	place = func(n directory.Named, depth int, from *node) {
		if placed[n.ID] {
			return
		}
		placed[n.ID] = true
		at := node{Named: n, X: 10 + depth*graphStep, Y: 10 + len(g.Nodes)*graphRow}
		if from != nil {
			at.FromX, at.FromY = from.X+14, from.Y+32
		}
		g.Nodes = append(g.Nodes, at)
		g.Width = max(g.Width, at.X+graphStep)
		for _, a := range agents {
			parent := parents[a.ID]
			if parent == n.ID || depth == 0 && !known[parent] {
				place(a, depth+1, &at)
			}
		}
	}
	place(of, 0, nil)
	g.Height = 10 + len(g.Nodes)*graphRow
	return g
}
