package main

// tally is what all sockets received together; times are in microseconds.
type tally struct {
	deliveries int64
	doubled    int64
	disordered int64
	firstStamp int64
	lastRead   int64
	latency    histogram
}

func (t *tally) add(stamp, at int64) {
	t.deliveries++
	t.latency.add(at - stamp)
	if t.firstStamp == 0 {
		t.firstStamp = stamp
	}
	t.lastRead = at
}

func (t *tally) distinct() int64 {
	return t.deliveries - t.doubled
}

// check tells by its number whether a frame is the next one of its socket. One that comes after a later one was
// disordered; one that comes again was doubled.
func (s *socket) check(number int64, tally *tally) {
	if number >= s.next {
		for ; s.next < number; s.next++ {
			if s.missing == nil {
				s.missing = map[int64]struct{}{}
			}
			s.missing[s.next] = struct{}{}
		}
		s.next = number + 1
		return
	}
	if _, late := s.missing[number]; late {
		delete(s.missing, number)
		tally.disordered++
		return
	}
	tally.doubled++
}

// lost counts what an opened socket never received of all frames up to the last.
func (s *socket) lost(last int64) int64 {
	return int64(len(s.missing)) + max(0, last-s.next+1)
}

type report struct {
	Opened     int     `json:"opened"`
	Refused    int     `json:"refused"`
	Alive      int     `json:"alive"`
	Deliveries int64   `json:"deliveries"`
	Lost       int64   `json:"lost"`
	Doubled    int64   `json:"doubled"`
	Disordered int64   `json:"disordered"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Most       float64 `json:"max_ms"`
	Seconds    float64 `json:"seconds"`
	Trouble    string  `json:"trouble"`
}

// report sums up; a socket is alive that answered a ping, and one that never opened can lose nothing.
func (c *crowd) report(last int64) report {
	latency := &c.tally.latency
	made := report{
		Opened:     c.opened,
		Refused:    c.wanted - c.opened,
		Alive:      c.pongs,
		Deliveries: c.tally.deliveries,
		Doubled:    c.tally.doubled,
		Disordered: c.tally.disordered,
		P50:        milliseconds(latency.quantile(0.5)),
		P99:        milliseconds(latency.quantile(0.99)),
		Most:       milliseconds(latency.most),
		Seconds:    milliseconds(c.tally.lastRead-c.tally.firstStamp) / 1000,
		Trouble:    c.trouble,
	}
	for _, s := range c.sockets {
		if s.wasOpen {
			made.Lost += s.lost(last)
		}
	}
	return made
}

func milliseconds(microseconds int64) float64 {
	return float64(microseconds) / 1000
}
