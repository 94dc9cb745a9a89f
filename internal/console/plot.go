package console

import (
	"math"
	"time"

	"github.com/leaverhq/leaver/internal/cascade"
)

// The size of plots, in SVG units.
const (
	plotWidth  = 600.0
	plotHeight = 24.0 // of a row
	labelWidth = 150.0
	maxRows    = 60
	maxLabel   = 20 // characters
)

// plot is a diagram of horizontal bars, one for each row of times.
type plot struct {
	Rows   []bar
	Target float64 // the position of the line of the target
	Width  float64
	Height float64
}

// bar is one row of a plot: a bar to the 95th percentile, with marks at the median and the maximum.
type bar struct {
	Label              string
	Times              cascade.Times
	Y                  float64
	Median, P95, Worst float64
}

func (p *plot) add(label string, t cascade.Times) {
	if len(p.Rows) < maxRows {
		p.Rows = append(p.Rows, bar{Label: label, Times: t, Y: plotHeight * float64(len(p.Rows))})
	}
}

// scale sets the positions, so that the greatest time and the target, in seconds, are in the plot.
func (p *plot) scale(target int) {
	most := float64(target)
	for _, b := range p.Rows {
		most = max(most, b.Times.Worst)
	}
	at := func(seconds float64) float64 { return labelWidth + math.Round(plotWidth*seconds/(most*1.05)) }
	for n, b := range p.Rows {
		p.Rows[n].Median, p.Rows[n].P95, p.Rows[n].Worst = at(b.Times.Median), at(b.Times.P95), at(b.Times.Worst)
	}
	p.Target, p.Width, p.Height = at(float64(target)), labelWidth+plotWidth, plotHeight*float64(len(p.Rows))
}

// Bar returns the width of a row's bar.
func (b bar) Bar() float64 { return b.P95 - labelWidth }

// timeline is a diagram of when the credentials of a cascade ended and were proven dead.
type timeline struct {
	Rows          []moment
	More          int // rows that are left out
	Width, Height float64
	Seconds       float64 // at the right end
}

// moment is one credential of a timeline. A position is 0 if it did not happen.
type moment struct {
	Label       string
	State       string
	Y           float64
	Ended, Dead float64
}

func (t *timeline) add(since time.Time, label, state string, ended, dead *time.Time) {
	if len(t.Rows) == maxRows {
		t.More++
		return
	}
	at := func(x *time.Time) float64 {
		if x == nil {
			return 0
		}
		return max(x.Sub(since).Seconds(), 0.001)
	}
	t.Rows = append(t.Rows, moment{clip(label), state, plotHeight * float64(len(t.Rows)), at(ended), at(dead)})
	t.Seconds = max(t.Seconds, at(ended), at(dead))
}

// scale replaces seconds by positions.
func (t *timeline) scale() {
	for n, m := range t.Rows {
		for _, x := range []*float64{&m.Ended, &m.Dead} {
			if *x > 0 {
				*x = labelWidth + math.Round((plotWidth-20)**x/t.Seconds)
			}
		}
		t.Rows[n] = m
	}
	t.Width, t.Height = labelWidth+plotWidth, plotHeight*float64(len(t.Rows))
}

// Last returns the position of the last mark of a row.
func (m moment) Last() float64 { return max(m.Ended, m.Dead, labelWidth) }
