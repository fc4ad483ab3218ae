package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/urfave/cli/v2"

	"imgward/guard"
)

func (u *ui) domainsCommand() *cli.Command {
	return &cli.Command{
		Name: "domains", Usage: "list every domain of this host and every image under it", HideHelpCommand: true,
		Flags: common(&cli.BoolFlag{Name: "csv", Usage: "list them as comma-separated values, under a line of headings"}),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("domains takes no operands")
			}
			if c.Bool("csv") && c.Bool("json") {
				return usagef("--csv and --json exclude each other")
			}
			s, err := u.open(c, guard.Check)
			if err != nil {
				return err
			}
			defer s.close()
			list, blind := guard.Domains(c.Context, s.host)
			if err := s.listDomains(list, c.Bool("csv")); err != nil {
				return fmt.Errorf("write to standard output: %w", err)
			}
			if len(blind) == 0 {
				return nil
			}
			if !s.quiet {
				for _, f := range blind {
					fmt.Fprintf(s.con.err, "imgward: %s\n", printable(f.Detail))
				}
				fmt.Fprintln(s.con.err, "imgward: the list may lack domains and images")
			}
			return &saidError{errors.New("the list is not whole")}
		},
	}
}

type domainJSON struct {
	Domain string            `json:"domain"`
	Domid  string            `json:"domid,omitempty"`
	State  guard.DomainState `json:"state"`
	Device string            `json:"device,omitempty"`
	Mode   string            `json:"mode,omitempty"`
	Image  string            `json:"image,omitempty"`
	Below  []string          `json:"below,omitempty"`
	Source string            `json:"source"`
}

func (u *ui) listDomains(list []guard.DomainDisk, asCSV bool) error {
	switch {
	case u.quiet:
		return nil
	case u.json:
		for _, d := range list {
			u.object(domainJSON(d))
		}
		return nil
	case asCSV:
		return domainsCSV(u.con.out, list)
	}
	if len(list) == 0 {
		u.remark("there are no domains on this host")
		return nil
	}
	return domainsTable(u.con.out, list)
}

// domainsCSV writes text without control characters, which JSON keeps.
func domainsCSV(out io.Writer, list []guard.DomainDisk) error {
	w := csv.NewWriter(out)
	rows := [][]string{{"domain", "domid", "state", "device", "mode", "image", "below", "source"}}
	for _, d := range list {
		row := []string{d.Domain, d.Domid, string(d.State), d.Device, d.Mode, d.Image, strings.Join(d.Below, " > "), d.Source}
		for i := range row {
			row[i] = printable(row[i])
		}
		rows = append(rows, row)
	}
	return w.WriteAll(rows)
}

func domainsTable(out io.Writer, list []guard.DomainDisk) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOMAIN\tID\tSTATE\tDEVICE\tMODE\tIMAGE\tON")
	for _, d := range list {
		below := make([]string, len(d.Below))
		for i, b := range d.Below {
			below[i] = phrase(b)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", word(d.Domain), word(d.Domid), d.State, word(d.Device), word(d.Mode), word(d.Image), orDash(strings.Join(below, " > ")))
	}
	return w.Flush()
}

// word shows foreign text as one word: quoted where it is not one.
func word(s string) string {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return strconv.Quote(s)
	}
	return orDash(phrase(s))
}

// phrase shows foreign text, quoted where it holds anything but ASCII that can
// be seen, and blanks.
func phrase(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
