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

// median of an even number of rounds is the mean of the middle two.
func median(ds []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
