package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	silence       = 20 * time.Second
	answerTime    = 3 * time.Second
	readSize      = 64 * 1024
	normalClosure = "\x03\xe8"
	cutOff        = 1006
)

// closed is how a server ended a socket: a code of RFC 6455, section 7.4.1, and its words.
type closed struct {
	code   uint16
	reason string
}

func closedWith(payload []byte) closed {
	if len(payload) < 2 {
		return closed{}
	}
	return closed{code: binary.BigEndian.Uint16(payload), reason: string(payload[2:])}
}

func (c closed) Error() string {
	return fmt.Sprintf("the server closed the socket: %d %s", c.code, c.reason)
}

// standing is what a frame that is no event says of the events.
type standing struct {
	Data struct {
		First int64  `json:"first_id"`
		Last  *int64 `json:"last_id"`
	} `json:"data"`
}

func standingOf(frame []byte) (standing, error) {
	var stands standing
	err := json.Unmarshal(frame, &stands)
	return stands, err
}

// viewing is what one has seen: the last event's number, how many events came that were not the next one, and the lines.
// Where the `whole` run is kept, nothing may be said to be gone.
type viewing struct {
	whole bool
	last  int64
	wrong int64
	ages  ages
}

// follow takes the next frame, and counts an event that is not the next one.
func (v *viewing) follow(frame []byte) error {
	number, _, isEvent := numberAfter(frame, idName)
	if !isEvent { // what went meanwhile is said to be gone
		stands, err := standingOf(frame)
		if v.whole && stands.Data.First > 1 {
			return fmt.Errorf("events before %d are said to be gone", stands.Data.First)
		}
		v.last = max(v.last, stands.Data.First-1)
		return err
	}
	if number != v.last+1 {
		v.wrong++
	}
	v.last = number
	return nil
}

// wire is a socket that has a goroutine of its own; `rest` is what has come and was not looked at yet.
type wire struct {
	connection net.Conn
	buffer     []byte
	rest       []byte
}

// open asks for a socket that is told all events after that one.
func (t target) open(since int64) (*wire, error) {
	connection, err := net.DialTimeout("tcp4", t.host, silence)
	if err != nil {
		return nil, err
	}
	w := &wire{connection: connection, buffer: make([]byte, readSize)}
	path := fmt.Sprintf("%s&since=%d", t.path, since)
	if err := w.send(handshake(path, t.host)); err != nil {
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
			err = closedWith(frame.payload)
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
	if err == io.EOF || isCut(err) {
		return closed{code: cutOff}
	}
	return err
}

func isCut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (w *wire) send(data []byte) error {
	if err := w.connection.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	_, err := w.connection.Write(data)
	if isCut(err) {
		return closed{code: cutOff}
	}
	return err
}

// goodbye ends a socket as a browser does: it says so, and waits for the answer, but not for long.
func (w *wire) goodbye() {
	if w.send(maskedFrame(opcodeClose, []byte(normalClosure))) != nil {
		return
	}
	for until := time.Now().Add(answerTime); w.read(time.Until(until)) == nil; {
		w.rest = nil
	}
}
