package main

import "math/bits"

// histogram counts values in buckets that are at most 1/64 of their value wide.
type histogram struct {
	counts [64 * 60]int64
	total  int64
	most   int64
}

func (h *histogram) add(value int64) {
	value = max(value, 0)
	h.counts[bucket(value)]++
	h.total++
	h.most = max(h.most, value)
}

// quantile is the lower bound of the bucket in which that part of all values is reached; 0 without values.
func (h *histogram) quantile(part float64) int64 {
	left := int64(part * float64(h.total))
	for index, count := range h.counts {
		if left < count {
			return lowerBound(index)
		}
		left -= count
	}
	return h.most
}

func bucket(value int64) int {
	if value < 128 {
		return int(value)
	}
	shift := bits.Len64(uint64(value)) - 7
	return 64*shift + int(value>>shift)
}

func lowerBound(bucket int) int64 {
	if bucket < 128 {
		return int64(bucket)
	}
	return int64(64+bucket%64) << (bucket/64 - 1)
}
