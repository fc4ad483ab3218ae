package hostfs

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What linux/dm-ioctl.h fixes of struct dm_ioctl, which is 312 bytes long and
// followed by data that belong to the command.
const (
	dmSize     = 312
	dmVersion  = 0   // u32 major, minor, patch
	dmDataSize = 12  // u32: bytes in all
	dmStart    = 16  // u32: where the data begin
	dmCount    = 20  // u32: targets in the data
	dmOpen     = 24  // s32: openers
	dmFlags    = 28  // u32
	dmDev      = 40  // u64: device number, in the encoding of makedev(3)
	dmName     = 48  // 128 bytes, up to a NUL
	dmUUID     = 176 // 129 bytes, up to a NUL

	dmSpec = 40 // struct dm_target_spec: u64 start, u64 length, s32 status, u32 next, 16 bytes type

	dmSuspendFlag     = 1 << 1
	dmStatusTableFlag = 1 << 4
	dmBufferFullFlag  = 1 << 8
	dmNoFlushFlag     = 1 << 11
	dmSecureDataFlag  = 1 << 15 // the kernel wipes its copy: a table can hold keys

	dmDevStatus   = 0xc138fd07 // _IOWR(0xfd, 7, struct dm_ioctl)
	dmTableStatus = 0xc138fd0c // _IOWR(0xfd, 12, struct dm_ioctl)

	dmControl  = "/dev/mapper/control"
	dmMaxTable = 64 << 20 // no table is that long; a kernel that asks for more is not believed
)

func askDMStatus(name string) (string, error) {
	b, err := askDM(dmDevStatus, name, dmSize, 0)
	if err != nil {
		return "", err
	}
	return decodeDMStatus(b)
}

func askDMTable(name string) (string, error) {
	for size := 16 << 10; size <= dmMaxTable; size *= 4 {
		b, err := askDM(dmTableStatus, name, size, dmStatusTableFlag|dmNoFlushFlag|dmSecureDataFlag)
		if err != nil {
			return "", err
		}
		table, full, err := decodeDMTable(b)
		clear(b)
		if !full {
			return table, err
		}
	}
	return "", syscall.EMSGSIZE
}

// askDM gives the command on the device of this number a buffer of size bytes.
func askDM(command uintptr, name string, size int, flags uint32) ([]byte, error) {
	dev, err := ParseDev(name)
	if err != nil {
		return nil, syscall.EINVAL
	}
	fd, err := openFd(dmControl, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := encodeDM(dev, size, flags)
	return b, ioctl(fd, command, b)
}

// encodeDM is a request for the device dev, in a buffer of size bytes, at least
// dmSize. It asks for version 4.0.0 of the interface, which every kernel since
// 2.6 has.
func encodeDM(dev uint64, size int, flags uint32) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b[dmVersion:], 4)
	binary.NativeEndian.PutUint32(b[dmDataSize:], uint32(size))
	binary.NativeEndian.PutUint32(b[dmStart:], dmSize)
	binary.NativeEndian.PutUint32(b[dmFlags:], flags)
	binary.NativeEndian.PutUint64(b[dmDev:], dev)
	return b
}

// decodeDMStatus writes a struct dm_ioctl as the answer to DMStatus.
func decodeDMStatus(b []byte) (string, error) {
	if len(b) < dmSize {
		return "", fmt.Errorf("device-mapper status of %d bytes: malformed", len(b))
	}
	suspended := 0
	if binary.NativeEndian.Uint32(b[dmFlags:])&dmSuspendFlag != 0 {
		suspended = 1
	}
	open := int32(binary.NativeEndian.Uint32(b[dmOpen:]))
	if open < 0 {
		return "", fmt.Errorf("device-mapper open count %d: malformed", open)
	}
	return fmt.Sprintf("open=%d suspended=%d uuid=%q name=%q", open, suspended,
		cString(b[dmUUID:dmUUID+129]), cString(b[dmName:dmName+128])), nil
}

// decodeDMTable writes a struct dm_ioctl and the targets after it as the answer
// to DMTable. It says full, and no more, where the buffer was too small. Each
// target is a struct dm_target_spec and its parameters, up to a NUL; next is
// where the following one begins, counted from the first.
func decodeDMTable(b []byte) (table string, full bool, err error) {
	if len(b) < dmSize {
		return "", false, fmt.Errorf("device-mapper table of %d bytes: malformed", len(b))
	}
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	if u32(dmFlags)&dmBufferFullFlag != 0 {
		return "", true, nil
	}
	count, start, end := u32(dmCount), u32(dmStart), u32(dmDataSize)
	if count == 0 {
		return "", false, nil
	}
	if start < dmSize || start > end || uint64(end) > uint64(len(b)) {
		return "", false, fmt.Errorf("device-mapper data from %d to %d in %d bytes: malformed", start, end, len(b))
	}
	data := b[start:end]
	var out strings.Builder
	for at := 0; count > 0; count-- {
		if at < 0 || at > len(data)-dmSpec {
			return "", false, fmt.Errorf("device-mapper target at %d of %d bytes: malformed", at, len(data))
		}
		spec := data[at : at+dmSpec]
		begin, length := binary.NativeEndian.Uint64(spec), binary.NativeEndian.Uint64(spec[8:])
		kind, rest := cString(spec[24:]), data[at+dmSpec:]
		params := cString(rest)
		if len(params) == len(rest) || strings.ContainsRune(kind+params, '\n') {
			return "", false, fmt.Errorf("device-mapper target at %d: malformed", at)
		}
		fmt.Fprintf(&out, "%d %d %s %s\n", begin, length, kind, hideKeys(kind, params))
		next := binary.NativeEndian.Uint32(spec[20:])
		if count > 1 && uint64(next) <= uint64(at+dmSpec+len(params)) {
			return "", false, fmt.Errorf("device-mapper target after %d at %d: malformed", at, next)
		}
		at = int(next)
	}
	return out.String(), false, nil
}

// hideKeys replaces by zeros the keys in a target's parameters: the second word
// of crypt and inlinecrypt, unless it is - for none or names a key of the kernel's keyring (":32:logon:..."), and
// the third part of "internal_hash:ALGORITHM:KEY" and its like of integrity
// (Documentation/admin-guide/device-mapper).
func hideKeys(kind, params string) string {
	words := strings.Split(params, " ")
	for i, w := range words {
		switch {
		case strings.HasSuffix(kind, "crypt") && i == 1 && w != "-" && !strings.HasPrefix(w, ":"):
			words[i] = strings.Repeat("0", len(w))
		case kind == "integrity" && strings.Count(w, ":") == 2:
			key := w[strings.LastIndexByte(w, ':')+1:]
			words[i] = strings.TrimSuffix(w, key) + strings.Repeat("0", len(key))
		}
	}
	return strings.Join(words, " ")
}
