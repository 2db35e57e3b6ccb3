package main

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"time"
)

// joiners come, stay for a moment and come again, each with the number of the last event it has, or with none. Where
// the `whole` run is kept, nothing may be said to be gone.
type joiners struct {
	target target
	stay   time.Duration
	whole  bool
	over   chan struct{}
	mutex  sync.Mutex
	found  joined
	served histogram
}

// joined is what became of them. `Wrong` counts events that came twice, too late or never; `Failure` is why one was
// not served, and empty otherwise; times are from asking for a socket to the newest event that there was.
type joined struct {
	Joined   int     `json:"joined"`
	Replayed int64   `json:"replayed"`
	Wrong    int64   `json:"wrong"`
	Failure  string  `json:"failure"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// comeAndGo has so many come and go until the parent says something, and tells what became of them.
func comeAndGo(target target, many int, stay time.Duration, whole bool, commands <-chan string) {
	all := &joiners{target: target, stay: stay, whole: whole, over: make(chan struct{})}
	var group sync.WaitGroup
	for number := range many {
		group.Add(1)
		go func() {
			defer group.Done()
			all.live(rand.New(rand.NewSource(int64(number))))
		}()
	}
	say(map[string]int{"joiners": many})
	if _, told := <-commands; !told {
		os.Exit(1)
	}
	close(all.over)
	group.Wait()
	all.found.P50 = milliseconds(all.served.quantile(0.5))
	all.found.P99 = milliseconds(all.served.quantile(0.99))
	say(all.found)
}

func (j *joiners) live(chance *rand.Rand) {
	last := int64(0)
	for {
		select {
		case <-j.over:
			return
		default:
		}
		since := last
		if chance.Intn(2) == 0 {
			since = 0
		}
		var err error
		// At a time of its own: else each would come again while a frame is on its way to the others.
		last, err = j.join(since, time.Duration(chance.Float64()*2*float64(j.stay)))
		if err != nil {
			j.mutex.Lock()
			j.found.Failure = err.Error()
			j.mutex.Unlock()
			return
		}
	}
}

// join sees what there is after `since`, and for some time what comes; it answers with the last event's number.
func (j *joiners) join(since int64, stay time.Duration) (int64, error) {
	asked, newestAt := time.Now(), time.Time{}
	wire, err := j.target.open(since)
	if err != nil {
		return 0, err
	}
	defer wire.connection.Close()
	told, err := wire.next(silence)
	if err != nil {
		return 0, err
	}
	stands, err := standingOf(told)
	if err != nil || stands.Data.Last == nil {
		return 0, fmt.Errorf("the first frame does not tell how things stand: %.200s", told)
	}
	kept := *stands.Data.Last
	seen := viewing{last: since, whole: j.whole}
	if err := seen.follow(told); err != nil {
		return 0, err
	}
	since = seen.last
	for until := time.Now().Add(stay); seen.last < kept || time.Now().Before(until); {
		if newestAt.IsZero() && seen.last >= kept {
			newestAt = time.Now()
		}
		patience := time.Until(until)
		if seen.last < kept {
			patience = silence
		}
		frame, err := wire.next(patience)
		if errors.Is(err, os.ErrDeadlineExceeded) && seen.last >= kept {
			break
		}
		if err == nil {
			err = seen.follow(frame)
		}
		if err != nil {
			return 0, fmt.Errorf("after event %d of %d: %w", seen.last, kept, err)
		}
	}
	if newestAt.IsZero() {
		newestAt = time.Now()
	}
	wire.goodbye()
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.served.add(newestAt.Sub(asked).Microseconds())
	j.found.Joined++
	j.found.Replayed += kept - since
	j.found.Wrong += seen.wrong
	return seen.last, nil
}
