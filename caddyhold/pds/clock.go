package pds

import (
	"math/rand/v2"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// clock makes TIDs, each greater than the one before, also when the time of
// day is set back. Only who holds the writer's transaction may use it.
type clock struct {
	now  func() time.Time
	id   uint  // tells apart the clocks of copies of a repository
	last int64 // unix microseconds of the last TID
}

// newClock returns a clock whose TIDs follow the given rev. Revs are made
// after the record keys of their commit, so they follow those too.
func newClock(now func() time.Time, rev string) *clock {
	return &clock{now: now, id: rand.UintN(1 << 10), last: int64(syntax.TID(rev).Integer() >> 10)}
}

func (c *clock) next() string {
	c.last = max(c.now().UnixMicro(), c.last+1)
	return syntax.NewTID(c.last, c.id).String()
}
