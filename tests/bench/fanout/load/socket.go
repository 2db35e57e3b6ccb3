package main

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

type state int

const (
	connecting state = iota
	upgrading
	greeting // Centrifuge: the connect command is sent and not yet answered
	open
	dead
)

const (
	opcodeText  = 1
	opcodeClose = 8
	opcodePing  = 9
	opcodePong  = 10
)

var errTaken = errors.New("the server closed the socket")

// socket is one WebSocket; `rest` holds what came of a frame that is not complete yet.
type socket struct {
	descriptor int
	state      state
	rest       []byte
	next       int64
	missing    map[int64]struct{}
	wasOpen    bool
	ponged     bool
}

func (c *crowd) serve(s *socket) {
	if s.state == connecting {
		c.upgrade(s)
		return
	}
	count, errno := readNow(s.descriptor, c.buffer)
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || count == 0 {
		c.bury(s, "the connection ended")
		return
	}
	at := time.Now()
	data := c.buffer[:count]
	if len(s.rest) > 0 {
		s.rest = append(s.rest, data...)
		data = s.rest
	}
	left, err := c.take(s, data, at)
	if err != nil {
		c.bury(s, err.Error())
		return
	}
	s.rest = append(s.rest[:0], left...)
}

// readNow is read(2) without what Go does around a call that may wait; this one never does.
func readNow(descriptor int, into []byte) (int, syscall.Errno) {
	count, _, errno := syscall.RawSyscall(
		syscall.SYS_READ, uintptr(descriptor), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)),
	)
	return int(count), errno
}

func (c *crowd) upgrade(s *socket) {
	if _, err := syscall.Write(s.descriptor, handshake(c.target.path, c.target.host)); err != nil {
		c.bury(s, "connect: "+err.Error())
		return
	}
	s.state = upgrading
	c.watch(s, syscall.EPOLL_CTL_MOD, syscall.EPOLLIN)
}

// take handles all that is complete and returns what is not.
func (c *crowd) take(s *socket, data []byte, at time.Time) ([]byte, error) {
	if s.state == upgrading {
		rest, complete, err := afterHandshake(data)
		if err != nil || !complete {
			return data, err
		}
		c.enter(s, at)
		data = rest
	}
	for {
		frame, rest, err := cutFrame(data)
		if err != nil || frame.payload == nil {
			return data, err
		}
		if err := c.handle(s, frame, at); err != nil {
			return nil, err
		}
		data = rest
	}
}

func (c *crowd) enter(s *socket, at time.Time) {
	if c.target.centrifuge {
		s.state = greeting
		c.write(s, opcodeText, []byte(`{"id":1,"connect":{}}`))
		return
	}
	c.isOpen(s, at)
}

func (c *crowd) isOpen(s *socket, at time.Time) {
	s.state, s.wasOpen = open, true
	c.opened++
	c.living++
	c.movedAt = at
}

func (c *crowd) handle(s *socket, frame frame, at time.Time) error {
	switch frame.opcode {
	case opcodeText:
		return c.hear(s, frame.payload, at)
	case opcodePing:
		c.write(s, opcodePong, frame.payload)
	case opcodePong:
		if !s.ponged {
			s.ponged = true
			c.pongs++
			c.movedAt = at
		}
	case opcodeClose:
		return errTaken
	default:
		return fmt.Errorf("a frame of kind %d", frame.opcode)
	}
	return nil
}

// hear takes a message: one event, or with Centrifuge's protocol several replies on a line each.
func (c *crowd) hear(s *socket, message []byte, at time.Time) error {
	if !c.target.centrifuge {
		return c.count(s, message, at)
	}
	for len(message) > 0 {
		var reply []byte
		reply, message, _ = bytes.Cut(message, []byte("\n"))
		switch {
		case s.state == greeting && bytes.Contains(reply, []byte(`"connect":`)):
			c.isOpen(s, at)
		case string(reply) == "{}":
			c.write(s, opcodeText, reply)
		default:
			if err := c.count(s, reply, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *crowd) count(s *socket, event []byte, at time.Time) error {
	if len(event) < 2 || event[0] != '{' || event[len(event)-1] != '}' {
		return errors.New("a frame that is no JSON object")
	}
	number, stamp, found := numbers(event)
	if !found {
		return nil
	}
	c.movedAt = at
	c.tally.add(stamp, at.UnixMicro())
	s.check(number, &c.tally)
	return nil
}

// write sends a small frame; a server that reads so little that it finds no room is as good as dead.
func (c *crowd) write(s *socket, opcode byte, payload []byte) {
	if s.state == dead { // its descriptor may be another's by now
		return
	}
	if _, err := syscall.Write(s.descriptor, maskedFrame(opcode, payload)); err != nil {
		c.bury(s, "write: "+err.Error())
	}
}
