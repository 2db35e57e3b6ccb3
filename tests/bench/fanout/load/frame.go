package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// handshake is what a client asks with for a socket.
func handshake(path, host string) []byte {
	return fmt.Appendf(nil,
		"GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		path, host,
	)
}

// afterHandshake is what follows the answer to it, once that is complete.
func afterHandshake(data []byte) (rest []byte, complete bool, err error) {
	head, rest, complete := bytes.Cut(data, []byte("\r\n\r\n"))
	if complete && !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return nil, false, fmt.Errorf("refused: %s", line)
	}
	return rest, complete, nil
}

type frame struct {
	opcode  byte
	payload []byte
}

// cutFrame splits the first frame off; its payload is nil while it is incomplete. Only whole, plain frames are taken:
// nothing was negotiated that would allow others.
func cutFrame(data []byte) (frame, []byte, error) {
	if len(data) < 2 {
		return frame{}, data, nil
	}
	if data[0]&0xf0 != 0x80 || data[1]&0x80 != 0 {
		return frame{}, data, errors.New("a frame that is fragmented, masked or spoilt")
	}
	head, size := 2, uint64(data[1])
	switch {
	case size == 126 && len(data) >= 4:
		head, size = 4, uint64(binary.BigEndian.Uint16(data[2:]))
	case size == 127 && len(data) >= 10:
		head, size = 10, binary.BigEndian.Uint64(data[2:])
	case size >= 126:
		return frame{}, data, nil
	}
	if uint64(len(data)-head) < size {
		return frame{}, data, nil
	}
	end := head + int(size)
	return frame{opcode: data[0] & 0x0f, payload: data[head:end:end]}, data[end:], nil
}

// maskedFrame is a small frame from a client, under the mask that changes nothing.
func maskedFrame(opcode byte, payload []byte) []byte {
	return append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

var (
	idName    = []byte(`"id":`)
	stampName = []byte(`"stamp `)
	bareName  = []byte("stamp ")
)

// numbers finds an event's number and its publisher's stamp, in microseconds; most of the event is never looked at.
func numbers(event []byte) (int64, int64, bool) {
	number, rest, hasNumber := numberAfter(event, idName)
	stamp, _, hasStamp := numberAfter(rest, stampName)
	return number, stamp, hasNumber && hasStamp
}

func numberAfter(text, name []byte) (int64, []byte, bool) {
	at := bytes.Index(text, name)
	if at < 0 {
		return 0, nil, false
	}
	text = text[at+len(name):]
	number, digits := int64(0), 0
	for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
		number = 10*number + int64(text[digits]-'0')
		digits++
	}
	return number, text[digits:], digits > 0
}
