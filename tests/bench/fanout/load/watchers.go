package main

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
)

const (
	tryAgainLater = 1013
	headSize      = 60
)

var completeName = []byte(`"type":"complete"`)

// watchers see a run to its end; who is closed comes again with the number of the last event it has.
type watchers struct {
	target target
	mutex  sync.Mutex
	found  watched
}

// watched is what became of them: how often one was told to come again, or cut off without a word, how many events came
// twice, too late or never, and when the first and the last line that they saw was printed, in seconds since 1970.
type watched struct {
	Told    int     `json:"told"`
	Cut     int     `json:"cut"`
	Wrong   int64   `json:"wrong"`
	First   float64 `json:"first"`
	Last    float64 `json:"last"`
	Failure string  `json:"failure"`
}

// watchToEnd has so many watch, and tells what became of them.
func watchToEnd(target target, many int) {
	all := &watchers{target: target}
	var group sync.WaitGroup
	for range many {
		group.Add(1)
		go func() {
			defer group.Done()
			all.live()
		}()
	}
	group.Wait()
	say(all.found)
}

func (w *watchers) live() {
	seen := viewing{}
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
	}
}

func (w *watched) add(seen viewing, err error) {
	w.Wrong += seen.wrong
	if w.First == 0 || seen.printed > 0 && seen.printed < w.First {
		w.First = seen.printed
	}
	w.Last = max(w.Last, seen.newest)
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
		v.notePrinted(frame)
	}
}

func (v *viewing) notePrinted(frame []byte) {
	first, last := bytes.Index(frame, stampName), bytes.LastIndex(frame, stampName)
	if first < 0 {
		return
	}
	if v.printed == 0 {
		v.printed = secondsAt(frame[first+len(stampName):])
	}
	v.newest = secondsAt(frame[last+len(stampName):])
}

// secondsAt reads a time up to the next blank; 0 where there is none.
func secondsAt(text []byte) float64 {
	word, _, _ := bytes.Cut(text[:min(headSize, len(text))], []byte(" "))
	seconds, err := strconv.ParseFloat(string(word), 64)
	if err != nil {
		return 0
	}
	return seconds
}
