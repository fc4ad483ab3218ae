package blockio

import "unsafe"

// down is n rounded down to a multiple of align, a power of two.
func down(n, align int64) int64 { return n &^ (align - 1) }

// up is n rounded up to a multiple of align, a power of two.
func up(n, align int64) int64 { return down(n+align-1, align) }

// cut splits a request of n bytes at off into what sticks out before the first
// aligned byte, the aligned body, and what sticks out behind it.
func cut(off, n, align int64) (head, body, tail int64) {
	head = min(up(off, align)-off, n)
	body = down(n-head, align)
	return head, body, n - head - body
}

// memAligned reports whether p starts at a multiple of align.
func memAligned(p []byte, align int) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&uintptr(align-1) == 0
}

// alignedBytes makes n bytes that start at a multiple of align. The Go heap does
// not move, and every request made from it is over when the call returns.
func alignedBytes(n, align int) []byte {
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}
