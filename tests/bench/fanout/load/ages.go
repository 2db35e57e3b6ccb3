package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"time"
)

const (
	longestStamp = 60
	lineSize     = 1024 * 1024
)

// ages is how old lines were when they were read: those that tell when they were printed, and their number from 0 on.
type ages struct {
	Lines int64   `json:"lines"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`

	skipped    int64
	due        int64
	disordered int64
	first      float64
	newest     float64
	histogram  histogram
}

// take looks at all the lines in a text, which was read at that time; each has its time and its number after the name.
func (a *ages) take(text, name []byte, at time.Time) {
	for {
		where := bytes.Index(text, name)
		if where < 0 {
			return
		}
		text = text[where+len(name):]
		words := bytes.SplitN(text[:min(longestStamp, len(text))], []byte(" "), 3)
		if len(words) < 3 {
			continue
		}
		printed, err := strconv.ParseFloat(string(words[0]), 64)
		number, wrong := strconv.ParseInt(string(words[1]), 10, 64)
		if err == nil && wrong == nil {
			a.add(printed, number, at)
		}
	}
}

func (a *ages) add(printed float64, number int64, at time.Time) {
	if a.first == 0 {
		a.first = printed
	}
	a.newest = printed
	if number < a.due {
		a.disordered++
	}
	a.due = number + 1
	a.Lines++
	if number >= a.skipped {
		a.histogram.add(at.UnixMicro() - int64(printed*1e6))
	}
}

func (a *ages) merge(other *ages) {
	a.Lines += other.Lines
	for index, count := range other.histogram.counts {
		a.histogram.counts[index] += count
	}
	a.histogram.total += other.histogram.total
	a.histogram.most = max(a.histogram.most, other.histogram.most)
}

func (a *ages) sum() {
	a.P50, a.P99 = milliseconds(a.histogram.quantile(0.5)), milliseconds(a.histogram.quantile(0.99))
}

// readLines reads so many such lines from standard input, and tells how old they were.
func readLines(wanted, skipped int64) error {
	found := ages{skipped: skipped}
	reader := bufio.NewReaderSize(os.Stdin, lineSize)
	for found.Lines < wanted {
		line, err := reader.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		found.take(line, bareName, time.Now())
	}
	found.sum()
	say(struct {
		ages
		Wrong int64 `json:"wrong"`
	}{found, found.disordered})
	return nil
}
