package main

import (
	"bytes"
	"errors"
	"sync"
	"time"
)

const (
	tryAgainLater = 1013
	headSize      = 60
	// Less than a browser waits, but not so little that who is sent away does nothing but come again.
	breath = 50 * time.Millisecond
)

var completeName = []byte(`"type":"complete"`)

// watchers see a run to its end; who is closed comes again with the number of the last event it has.
type watchers struct {
	target target
	mutex  sync.Mutex
	found  watched
}

// watched is what became of them: how often one was told to come again, or cut off without a word, how many events came
// twice, too late or never, when the first and the last line that they saw was printed, in seconds since 1970, and how
// old the lines were when they were read.
type watched struct {
	Told    int     `json:"told"`
	Cut     int     `json:"cut"`
	Wrong   int64   `json:"wrong"`
	First   float64 `json:"first"`
	Last    float64 `json:"last"`
	Failure string  `json:"failure"`
	ages
}

// watchToEnd has so many watch, and tells what became of them; the age of the first lines of a run does not count.
func watchToEnd(target target, many int, skipped int64) {
	all := &watchers{target: target, found: watched{ages: ages{skipped: skipped}}}
	var group sync.WaitGroup
	for range many {
		group.Add(1)
		go func() {
			defer group.Done()
			all.live()
		}()
	}
	group.Wait()
	all.found.ages.sum()
	say(all.found)
}

func (w *watchers) live() {
	seen := viewing{ages: ages{skipped: w.found.skipped}}
	for {
		err := seen.watch(w.target)
		w.mutex.Lock()
		var taken closed
		switch {
		case errors.As(err, &taken) && taken.code == tryAgainLater:
			w.found.Told++
		case errors.As(err, &taken) && taken.code == cutOff:
			w.found.Cut++
		default:
			w.found.add(seen, err)
			w.mutex.Unlock()
			return
		}
		w.mutex.Unlock()
		time.Sleep(breath)
	}
}

func (w *watched) add(seen viewing, err error) {
	w.Wrong += seen.wrong + seen.ages.disordered
	if w.First == 0 || seen.ages.first > 0 && seen.ages.first < w.First {
		w.First = seen.ages.first
	}
	w.Last = max(w.Last, seen.ages.newest)
	w.ages.merge(&seen.ages)
	if err != nil {
		w.Failure = err.Error()
	}
}

// watch reads to the end of the run, or returns why it cannot.
func (v *viewing) watch(target target) error {
	wire, err := target.open(v.last)
	if err != nil {
		return err
	}
	defer wire.connection.Close()
	for {
		frame, err := wire.next(silence)
		if err != nil {
			return err
		}
		if err := v.follow(frame); err != nil {
			return err
		}
		if bytes.Contains(frame[:min(headSize, len(frame))], completeName) {
			wire.goodbye()
			return nil
		}
		v.ages.take(frame, stampName, time.Now())
	}
}
