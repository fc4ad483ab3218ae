package ddcmd

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// reading is what became of a number.
type reading uint8

const (
	fine reading = iota
	tooLarge
	noNumber
	largeJunk // too large, and what follows makes no sense; it is the first that is told
)

// product reads factors with an "x" between them. Zero times what is too large is
// zero. zeroTimes tells that there is a factor "0", which may have been meant as
// the beginning of a hexadecimal number.
func product(s string) (n uint64, zeroTimes bool, r reading) {
	first, rest, more := strings.Cut(s, "x")
	n, r = factor(first)
	if r == noNumber || r == largeJunk || !more {
		return n, false, r
	}
	m, zeroTimes, mr := product(rest)
	if mr == noNumber || mr == largeJunk {
		return 0, false, noNumber
	}
	if r == fine && n == 0 || mr == fine && m == 0 {
		return 0, zeroTimes || first == "0", fine
	}
	if r == tooLarge || mr == tooLarge {
		return 0, zeroTimes, tooLarge
	}
	n, r = times(n, m)
	return n, zeroTimes, r
}

func times(n, m uint64) (uint64, reading) {
	high, low := bits.Mul64(n, m)
	if high != 0 {
		return 0, tooLarge
	}
	return low, fine
}

// units are the powers of 1000 or 1024 that a letter stands for. The small letter
// is as good as the large one for kilo alone.
var units = map[byte]int{'k': 1, 'K': 1, 'M': 2, 'G': 3, 'T': 4, 'P': 5, 'E': 6, 'Z': 7, 'Y': 8}

// factor reads digits and a suffix, or a suffix, which then stands for one of its
// kind. strtoumax(3) is why there may be space and a plus before the digits.
func factor(s string) (n uint64, r reading) {
	digits := strings.TrimPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "+")
	suffix := strings.TrimLeft(digits, "0123456789")
	digits = digits[:len(digits)-len(suffix)]
	if digits == "" {
		if suffix != s || s == "" || s[0] == 'B' {
			return 0, noNumber
		}
		digits = "1"
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n, r = math.MaxUint64, tooLarge
	}
	scale, power, taken := uint64(1), 0, 0
	if suffix != "" {
		taken = 1
		switch unit := units[suffix[0]]; {
		case unit == 0:
			switch suffix[0] {
			case 'c':
			case 'w':
				scale, power = 2, 1
			case 'b':
				scale, power = 512, 1
			default:
				taken = 0
			}
		case strings.HasPrefix(suffix[1:], "iB"):
			scale, power, taken = 1024, unit, 3
		case strings.HasPrefix(suffix[1:], "B"), strings.HasPrefix(suffix[1:], "D"):
			scale, power, taken = 1000, unit, 2
		default:
			scale, power = 1024, unit
		}
	}
	rest := suffix[taken:]
	for range power {
		if r == fine {
			n, r = times(n, scale)
		}
	}
	if rest != "" && (rest != "B" || taken > 0 && suffix[taken-1] == 'B') {
		if r == tooLarge {
			return 0, largeJunk
		}
		return 0, noNumber
	}
	return n, r
}
