package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the table. Its error names what of ours failed.
func report(w io.Writer, size int64, against string, results []*result, missing []string) error {
	base := 0.0
	for _, r := range results {
		if r.peer.name == against && r.err == nil {
			base = median(r.took).Seconds()
		}
	}
	var failed error
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "\tbest s\tmedian s\tGB/s\tto %s\tpeak MiB\t\n", against)
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(tw, "%s\tfailed\t\t\t\t\t\n", r.peer.name)
			if r.peer.ours {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", r.peer.name, r.err))
			}
			continue
		}
		m := median(r.took).Seconds()
		ratio := "-"
		if base > 0 {
			ratio = fmt.Sprintf("%.2fx", base/m)
		}
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.2f\t%s\t%d\t\n",
			r.peer.name, slices.Min(r.took).Seconds(), m, float64(size)/1e9/m, ratio, r.rss>>20)
	}
	err := tw.Flush()
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(w, "%s failed: %v\n", r.peer.name, r.err)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(w, "not here: %s\n", strings.Join(missing, ", "))
	}
	return errors.Join(err, failed)
}

// hurdles prints the bars of a set, and whether they are met. changed is how many
// bytes of the targets differed from the source at most.
func (s set) hurdles(w io.Writer, results []*result, changed int64) {
	found := func(name string) *result {
		i := slices.IndexFunc(results, func(r *result) bool { return r.peer.name == name && r.err == nil })
		if i < 0 {
			return &result{}
		}
		return results[i]
	}
	say := func(met bool, text string, args ...any) {
		verdict := "not met"
		if met {
			verdict = "met"
		}
		fmt.Fprintf(w, "bar %s: %s\n", verdict, fmt.Sprintf(text, args...))
	}
	for _, b := range s.bars {
		o := found(b.ours)
		if o.took == nil {
			say(false, "%s did not run", b.ours)
			continue
		}
		m := median(o.took)
		switch {
		case b.within > 0:
			say(m <= b.within, "%s takes %v, at most %v", b.ours, m.Round(time.Millisecond), b.within)
		case b.writes > 0:
			ratio := float64(o.wrote) / float64(changed)
			say(ratio <= b.writes, "%s writes %.3f times the %d KiB that differ, at most %.1f", b.ours, ratio, changed>>10, b.writes)
		}
		for _, name := range b.against {
			p := found(name)
			if p.took == nil {
				fmt.Fprintf(w, "bar open: %s against %s, which did not run\n", b.ours, name)
				continue
			}
			ratio := median(p.took).Seconds() / m.Seconds()
			say(ratio >= b.least, "%s is %.2f times as fast as %s, at least %.2f", b.ours, ratio, name, b.least)
		}
	}
	for _, r := range results {
		if r.peer.ours && r.rss > maxPeak {
			say(false, "%s has a peak of %d MiB, at most %d", r.peer.name, r.rss>>20, maxPeak>>20)
		}
	}
}

// median of an even number of rounds is the mean of the middle two.
func median(ds []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
