// Command load opens many WebSockets, reads them all from one thread, and says what was lost, doubled or late.
//
// It and its parent talk in lines. It prints {"opened": …} when all sockets are open. Told the number of the last frame
// that was published, it prints {"settled": true} once every socket has it, or nothing more comes. Told anything again,
// it asks each socket for a sign of life, prints its report and ends.
//
// With -joiners it has some come and go instead, and prints what became of them when it is told anything; with -watchers
// it has some see a run to its end, and prints what became of those. With -lines it reads no socket but standard input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	var target target
	flag.StringVar(&target.host, "host", "", "address and port of the server")
	flag.StringVar(&target.path, "path", "/", "path and query of its socket")
	flag.BoolVar(&target.centrifuge, "centrifuge", false, "whether it speaks Centrifuge's protocol")
	sockets := flag.Int("sockets", 1, "how many to open")
	ramp := flag.Int("ramp", 500, "how many to open a second")
	first := flag.Int64("first", 1, "the number of the first frame that will be published")
	many := flag.Int("joiners", 0, "instead: how many come, stay for a moment, and come again")
	stay := flag.Duration("stay", 500*time.Millisecond, "how long they stay, on average")
	whole := flag.Bool("whole", false, "whether those that come may find that nothing of the run is gone")
	watching := flag.Int("watchers", 0, "instead: how many see a run to its end, and come again when they are closed")
	reading := flag.Int64("lines", 0, "instead: how many stamped lines of standard input to read")
	skipped := flag.Int64("skipped", 0, "how many lines at first whose age does not count")
	flag.Parse()
	var err error
	switch {
	case *many > 0:
		comeAndGo(target, *many, *stay, *whole, commands())
	case *watching > 0:
		watchToEnd(target, *watching, *skipped)
	case *reading > 0:
		err = readLines(*reading, *skipped)
	default:
		err = load(target, *sockets, *first, *ramp)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(target target, sockets int, first int64, ramp int) error {
	crowd, err := newCrowd(target, sockets, first)
	if err != nil {
		return err
	}
	return measure(crowd, ramp, commands())
}

// commands are the lines of standard input; the channel is closed when the parent is gone.
func commands() <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

func measure(crowd *crowd, ramp int, commands <-chan string) error {
	if err := crowd.openAll(ramp); err != nil {
		return err
	}
	say(map[string]int{"opened": crowd.opened})
	last, err := strconv.ParseInt(await(crowd, commands), 10, 64)
	if err != nil {
		return err
	}
	if err := crowd.settle(last); err != nil {
		return err
	}
	say(map[string]bool{"settled": true})
	await(crowd, commands)
	if err := crowd.pingAll(); err != nil {
		return err
	}
	say(crowd.report(last))
	return nil
}

// await serves the sockets until the parent says something; without a parent there is nothing left to do.
func await(crowd *crowd, commands <-chan string) string {
	var line string
	told := false
	err := crowd.serveUntil(func() bool {
		select {
		case line, told = <-commands:
			return true
		default:
			return false
		}
	})
	if err != nil || !told {
		os.Exit(1)
	}
	return line
}

func say(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
