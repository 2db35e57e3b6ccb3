package main

import (
	"net"
	"syscall"
	"time"
)

const (
	openPatience      = 20 * time.Second
	patience          = 5 * time.Second
	mostPatience      = 60 * time.Second
	pulseMilliseconds = 10
	// More at once would overflow a server's backlog, and a connection that the kernel drops waits a second.
	mostUnopened = 200
)

type target struct {
	host       string
	path       string
	centrifuge bool
}

// crowd is all sockets, served by one epoll loop: a goroutine a socket would cost more than some servers do.
type crowd struct {
	target       target
	address      *syscall.SockaddrInet4
	first        int64
	wanted       int
	epoll        int
	events       []syscall.EpollEvent
	buffer       []byte
	sockets      []*socket
	byDescriptor []*socket
	opened       int
	refused      int
	living       int
	pongs        int
	trouble      string
	movedAt      time.Time
	tally        tally
}

func newCrowd(target target, wanted int, first int64) (*crowd, error) {
	resolved, err := net.ResolveTCPAddr("tcp4", target.host)
	if err != nil {
		return nil, err
	}
	epoll, err := syscall.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	return &crowd{
		target:  target,
		address: &syscall.SockaddrInet4{Port: resolved.Port, Addr: [4]byte(resolved.IP.To4())},
		first:   first,
		wanted:  wanted,
		epoll:   epoll,
		events:  make([]syscall.EpollEvent, 512),
		buffer:  make([]byte, 256*1024),
	}, nil
}

// serveUntil reads what comes until the answer is true.
func (c *crowd) serveUntil(done func() bool) error {
	for !done() {
		count, err := syscall.EpollWait(c.epoll, c.events, pulseMilliseconds)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, event := range c.events[:max(count, 0)] {
			if s := c.byDescriptor[event.Fd]; s != nil {
				c.serve(s)
			}
		}
	}
	return nil
}

func (c *crowd) quietFor(limit time.Duration) bool {
	return time.Since(c.movedAt) > limit
}

// openAll opens the sockets at so many a second, and slower where the server is.
func (c *crowd) openAll(ramp int) error {
	began := time.Now()
	c.movedAt = began
	return c.serveUntil(func() bool {
		due := min(c.wanted, 1+int(time.Since(began).Seconds()*float64(ramp)))
		for len(c.sockets) < due && len(c.sockets)-c.opened-c.refused < mostUnopened {
			c.begin()
		}
		return c.opened+c.refused == c.wanted || c.quietFor(openPatience)
	})
}

// serveWhileMoving does the same, and gives up when nothing comes any more or it takes too long.
func (c *crowd) serveWhileMoving(done func() bool) error {
	began := time.Now()
	c.movedAt = began
	return c.serveUntil(func() bool {
		return done() || c.quietFor(patience) || time.Since(began) > mostPatience
	})
}

// settle waits until every socket has all frames up to the last.
func (c *crowd) settle(last int64) error {
	due := int64(c.opened) * (last - c.first + 1)
	return c.serveWhileMoving(func() bool { return c.tally.distinct() >= due || c.living == 0 })
}

// pingAll asks every open socket for a sign of life.
func (c *crowd) pingAll() error {
	asked := 0
	for _, s := range c.sockets {
		if s.state == open {
			c.write(s, opcodePing, nil)
			asked++
		}
	}
	return c.serveWhileMoving(func() bool { return c.pongs >= asked })
}

func (c *crowd) begin() {
	descriptor, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	s := &socket{descriptor: descriptor, next: c.first}
	c.sockets = append(c.sockets, s)
	if err != nil {
		c.bury(s, "socket: "+err.Error())
		return
	}
	for len(c.byDescriptor) <= descriptor {
		c.byDescriptor = append(c.byDescriptor, nil)
	}
	c.byDescriptor[descriptor] = s
	if err := syscall.Connect(descriptor, c.address); err != nil && err != syscall.EINPROGRESS {
		c.bury(s, "connect: "+err.Error())
		return
	}
	// It becomes writable when it is connected; after that only what comes is of interest.
	c.watch(s, syscall.EPOLL_CTL_ADD, syscall.EPOLLOUT)
}

func (c *crowd) watch(s *socket, operation int, events uint32) {
	event := syscall.EpollEvent{Events: events, Fd: int32(s.descriptor)}
	if err := syscall.EpollCtl(c.epoll, operation, s.descriptor, &event); err != nil {
		c.bury(s, "epoll: "+err.Error())
	}
}

// bury ends a socket; the first reason of all is told at the end.
func (c *crowd) bury(s *socket, why string) {
	if s.state == dead {
		return
	}
	if s.state == open {
		c.living--
	} else {
		c.refused++
	}
	if c.trouble == "" {
		c.trouble = why
	}
	s.state = dead
	if s.descriptor >= 0 {
		c.byDescriptor[s.descriptor] = nil
		_ = syscall.Close(s.descriptor) // nothing more is wanted of it
	}
}
