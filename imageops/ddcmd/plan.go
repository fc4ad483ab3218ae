package ddcmd

import "golang.org/x/sys/unix"

// A Plan is what the operands ask for.
type Plan struct {
	In, Out       string // of if= and of=
	HasIn, HasOut bool   // without, it is a standard descriptor

	IBS, OBS, CBS int64 // sizes of blocks, in bytes

	// What to pass over before, and how much to read at most: whole blocks, and
	// bytes behind them. MaxRecords is math.MaxInt64 if there is no end to it.
	SkipRecords, SkipBytes int64
	SeekRecords, SeekBytes int64
	MaxRecords, MaxBytes   int64

	Conv           Conv
	IFlags, OFlags Flags
	Status         Status

	warnPartial bool // a short read will surprise
}

// Conv is a set of the symbols of conv=.
type Conv uint

const (
	ASCII Conv = 1 << iota
	EBCDIC
	IBM
	Block
	Unblock
	LCase
	UCase
	Sparse
	Swab
	Sync
	Excl
	NoCreat
	NoTrunc
	NoError
	FDataSync
	FSync

	// reblocks says that the input's blocks are not the output's.
	reblocks
)

var conversions = map[string]Conv{
	"ascii":     ASCII | Unblock | reblocks,
	"ebcdic":    EBCDIC | Block | reblocks,
	"ibm":       IBM | Block | reblocks,
	"block":     Block | reblocks,
	"unblock":   Unblock | reblocks,
	"lcase":     LCase | reblocks,
	"ucase":     UCase | reblocks,
	"sparse":    Sparse,
	"swab":      Swab | reblocks,
	"sync":      Sync,
	"excl":      Excl,
	"nocreat":   NoCreat,
	"notrunc":   NoTrunc,
	"noerror":   NoError,
	"fdatasync": FDataSync,
	"fsync":     FSync,
}

// Flags is a set of the symbols of iflag= and oflag=.
type Flags uint

const (
	Append Flags = 1 << iota
	Direct
	Directory
	DSync
	FullSync
	FullBlock
	NoCache
	NonBlock
	NoATime
	NoCTTY
	NoFollow
	CountBytes
	SkipBytes
	SeekBytes
)

var flags = map[string]Flags{
	"append":      Append,
	"direct":      Direct,
	"directory":   Directory,
	"dsync":       DSync,
	"sync":        FullSync,
	"fullblock":   FullBlock,
	"nocache":     NoCache,
	"nonblock":    NonBlock,
	"noatime":     NoATime,
	"noctty":      NoCTTY,
	"nofollow":    NoFollow,
	"count_bytes": CountBytes,
	"skip_bytes":  SkipBytes,
	"seek_bytes":  SeekBytes,
}

// open gives the flags of open(2).
func (f Flags) open() int {
	o := 0
	for flag, v := range map[Flags]int{
		Append: unix.O_APPEND, Direct: unix.O_DIRECT, Directory: unix.O_DIRECTORY, DSync: unix.O_DSYNC, FullSync: unix.O_SYNC,
		NonBlock: unix.O_NONBLOCK, NoATime: unix.O_NOATIME, NoCTTY: unix.O_NOCTTY, NoFollow: unix.O_NOFOLLOW,
	} {
		if f&flag != 0 {
			o |= v
		}
	}
	return o
}

// Status is how much is said about the work.
type Status uint8

const (
	StatusAll Status = iota
	StatusNoXfer
	StatusNone
	StatusProgress
)

var statuses = map[string]Status{"none": StatusNone, "noxfer": StatusNoXfer, "progress": StatusProgress}

// input and output are the names that messages use.
func (p *Plan) input() string {
	if p.HasIn {
		return p.In
	}
	return "standard input"
}

func (p *Plan) output() string {
	if p.HasOut {
		return p.Out
	}
	return "standard output"
}

// nothing reports whether count= asks for no input at all.
func (p *Plan) nothing() bool { return p.MaxRecords == 0 && p.MaxBytes == 0 }
