package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"sync"
	"time"
)

const (
	silence       = 20 * time.Second
	answerTime    = 3 * time.Second
	readSize      = 64 * 1024
	normalClosure = "\x03\xe8"
)

// joiners come, stay for a moment and come again, each with the number of the last event it has, or with none.
type joiners struct {
	target target
	stay   time.Duration
	over   chan struct{}
	mutex  sync.Mutex
	found  joined
}

// joined is what became of them. `Wrong` counts events that came twice, too late or never; `Failure` is why one was
// not served, and empty otherwise.
type joined struct {
	Joined   int    `json:"joined"`
	Replayed int64  `json:"replayed"`
	Wrong    int64  `json:"wrong"`
	Failure  string `json:"failure"`
}

// standing is what a frame that is no event says of the events.
type standing struct {
	Data struct {
		First int64  `json:"first_id"`
		Last  *int64 `json:"last_id"`
	} `json:"data"`
}

// comeAndGo has so many come and go until the parent says something, and tells what became of them.
func comeAndGo(target target, many int, stay time.Duration, commands <-chan string) {
	all := &joiners{target: target, stay: stay, over: make(chan struct{})}
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
	wire, err := j.open(since)
	if err != nil {
		return 0, err
	}
	defer wire.connection.Close()
	told, err := wire.next(silence)
	if err != nil {
		return 0, err
	}
	var stands standing
	if err := json.Unmarshal(told, &stands); err != nil || stands.Data.Last == nil {
		return 0, fmt.Errorf("the first frame does not tell how things stand: %.200s", told)
	}
	kept := *stands.Data.Last
	since = max(since, stands.Data.First-1)
	last, wrong := since, int64(0)
	for until := time.Now().Add(stay); last < kept || time.Now().Before(until); {
		patience := time.Until(until)
		if last < kept {
			patience = silence
		}
		frame, err := wire.next(patience)
		if errors.Is(err, os.ErrDeadlineExceeded) && last >= kept {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("after event %d of %d: %w", last, kept, err)
		}
		number, _, isEvent := numberAfter(frame, idName)
		if isEvent {
			if number != last+1 {
				wrong++
			}
			last = number
			continue
		}
		// What went while it was caught up is said to be gone.
		var anew standing
		if err := json.Unmarshal(frame, &anew); err != nil {
			return 0, err
		}
		last = max(last, anew.Data.First-1)
	}
	wire.goodbye()
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.found.Joined++
	j.found.Replayed += kept - since
	j.found.Wrong += wrong
	return last, nil
}

// wire is one joiner's socket; `rest` is what has come and was not looked at yet.
type wire struct {
	connection net.Conn
	buffer     []byte
	rest       []byte
}

func (j *joiners) open(since int64) (*wire, error) {
	connection, err := net.DialTimeout("tcp4", j.target.host, silence)
	if err != nil {
		return nil, err
	}
	w := &wire{connection: connection, buffer: make([]byte, readSize)}
	path := fmt.Sprintf("%s&since=%d", j.target.path, since)
	if err := w.send(handshake(path, j.target.host)); err != nil {
		connection.Close()
		return nil, err
	}
	for {
		rest, complete, err := afterHandshake(w.rest)
		if complete {
			w.rest = rest
			return w, nil
		}
		if err == nil {
			err = w.read(silence)
		}
		if err != nil {
			connection.Close()
			return nil, err
		}
	}
}

// next is the next message; what the protocol itself asks for is answered on the way.
func (w *wire) next(patience time.Duration) ([]byte, error) {
	for {
		frame, rest, err := cutFrame(w.rest)
		if err != nil {
			return nil, err
		}
		if frame.payload == nil {
			if err := w.read(patience); err != nil {
				return nil, err
			}
			continue
		}
		w.rest = rest
		switch frame.opcode {
		case opcodeText:
			return frame.payload, nil
		case opcodePing:
			err = w.send(maskedFrame(opcodePong, frame.payload))
		case opcodeClose:
			err = fmt.Errorf("%w: %q", errTaken, frame.payload)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (w *wire) read(patience time.Duration) error {
	if err := w.connection.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	count, err := w.connection.Read(w.buffer)
	// A slice of its own: a frame that was given out may still lie in the one before.
	w.rest = append(append(make([]byte, 0, len(w.rest)+count), w.rest...), w.buffer[:count]...)
	return err
}

func (w *wire) send(data []byte) error {
	if err := w.connection.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	_, err := w.connection.Write(data)
	return err
}

// goodbye ends a socket as a browser does: it says so, and waits for the answer.
func (w *wire) goodbye() {
	if w.send(maskedFrame(opcodeClose, []byte(normalClosure))) != nil {
		return
	}
	for w.read(answerTime) == nil {
		w.rest = nil
	}
}
