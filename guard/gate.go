package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A gate refuses every open of a regular file by anybody else (fanotify(7),
// FAN_OPEN_PERM), under whatever name, from whatever mount namespace, by
// processes and on behalf of them by the kernel. Descriptors that were open
// before are not touched: that there are none is for the lease to prove, behind
// the closed gate. It needs CAP_SYS_ADMIN.
//
// An opener is told ETXTBSY, as of an active swap file, or EPERM by kernels before
// 6.14. EBUSY will not do: losetup(8) would try again for ever.
//
// The mark lies on the inode and dies with us. While we are stopped (SIGSTOP),
// openers wait and can be killed. truncate(2) by name opens nothing and passes;
// on overlayfs the file below is another inode.
type gate struct {
	group *os.File
	deny  uint32 // what an opener is answered
	self  int32

	host   *Host
	target *Target
	notice func(Finding)
	told   map[string]bool

	ended chan struct{} // closed when nobody answers any more
	err   error         // why, if the gate was not opened by us

	mu   sync.Mutex
	open bool
}

// gateLocker closes the gate. It comes before the lease.
type gateLocker struct{}

func (gateLocker) Name() string { return "gate" }

// Lock implements [Locker]. Without the right to it, or on a file system that
// cannot, there is no gate and the lease stays.
func (gateLocker) Lock(_ context.Context, host *Host, t *Target) (func(context.Context) error, error) {
	if t.ID.Kind != KindFile {
		return nil, nil
	}
	g, err := closeGate(host, t, int32(os.Getpid()))
	if err != nil {
		return nil, err
	}
	t.held.gate = g
	return func(context.Context) error { return g.release() }, nil
}

// closeGate lets nobody in but the process self.
func closeGate(host *Host, t *Target, self int32) (*gate, error) {
	// Without an unlimited queue the kernel lets openers pass when it is full.
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_PRE_CONTENT|unix.FAN_UNLIMITED_QUEUE|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(t.held.fd())
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, name); err != nil {
		return nil, errors.Join(fmt.Errorf("fanotify_mark %s: %w", quote(t.Real), err), unix.Close(fd))
	}
	g := &gate{
		group: os.NewFile(uintptr(fd), "fanotify"), deny: unix.FAN_DENY | uint32(unix.ETXTBSY)<<unix.FAN_ERRNO_SHIFT, self: self,
		host: host, target: t, notice: t.held.notice, told: map[string]bool{}, ended: make(chan struct{}),
	}
	go g.serve()
	return g, nil
}

// serve answers openers and does nothing else: they wait for it.
func (g *gate) serve() {
	defer close(g.ended)
	buf := make([]byte, 64*unix.FAN_EVENT_METADATA_LEN)
	for {
		n, err := g.group.Read(buf)
		if err == nil {
			err = g.answer(buf[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.ENOMEM):
			// There was no descriptor for an event; the kernel refused that opener.
		default:
			g.mu.Lock()
			defer g.mu.Unlock()
			if !g.open {
				g.err = fmt.Errorf("answer openers: %w", err)
			}
			return
		}
	}
}

// answer answers the openers of one read.
func (g *gate) answer(b []byte) error {
	events, failed := parseFanotify(b)
	for _, e := range events {
		if e.fd < 0 {
			continue
		}
		response := g.deny
		var who Finding
		if e.pid == g.self {
			response = unix.FAN_ALLOW
		} else {
			who = g.visitor(e.pid) // he waits, and so can be looked at
		}
		failed = errors.Join(failed, g.respond(e.fd, response), unix.Close(int(e.fd)))
		if response != unix.FAN_ALLOW && g.notice != nil && !g.told[who.Key] {
			g.told[who.Key] = true
			g.notice(who)
		}
	}
	return failed
}

func (g *gate) respond(fd int32, response uint32) error {
	var b [8]byte // struct fanotify_response: s32 fd; u32 response
	binary.NativeEndian.PutUint32(b[:], uint32(fd))
	binary.NativeEndian.PutUint32(b[4:], response)
	_, err := g.group.Write(b[:])
	if errors.Is(err, unix.EINVAL) && response == g.deny && g.deny != unix.FAN_DENY {
		g.deny = unix.FAN_DENY
		return g.respond(fd, g.deny)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil // the opener was killed meanwhile
	}
	if err != nil {
		return fmt.Errorf("write fanotify: %w", err)
	}
	return nil
}

// visitor says who is at the gate, and who started him. Only files are read
// that answer without waiting for anything. The key is the command's name, so
// that one who tries again and again is told of once.
func (g *gate) visitor(pid int32) Finding {
	subject, key := processName(g.host, strconv.Itoa(int(pid)))
	if i := strings.LastIndexByte(key, '.'); i > 0 {
		key = key[:i]
	}
	detail := "tried to open it and was refused"
	if parent := parentOf(g.host, pid); parent != "" {
		by, _ := processName(g.host, parent)
		detail = "started by " + by + ", " + detail
	}
	return Finding{
		Code: HoldDenied, Relation: Same, Subject: subject, Key: key, Detail: detail,
		Source: "fanotify on " + quote(g.target.Real), Remedy: "let it try again when imgward is done",
	}
}

// parentOf gives the parent's process id, or "" (proc_pid_stat(5), field 4, after
// the name in parentheses, which may itself hold some).
func parentOf(host *Host, pid int32) string {
	b, err := host.FS.ReadFile(path.Join("/proc", strconv.Itoa(int(pid)), "stat"))
	if err != nil {
		return ""
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 2 || f[1] == "0" {
		return ""
	}
	return f[1]
}

// release opens the gate. Whoever waits at it goes in.
func (g *gate) release() error {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	err := g.group.Close()
	<-g.ended
	return err
}

// closed reports whether somebody still answers.
func (g *gate) closed() bool {
	select {
	case <-g.ended:
		return false
	default:
		return true
	}
}

// gateWatcher ends when the gate does.
type gateWatcher struct{}

func (gateWatcher) Name() string { return "gate" }

// Watch implements [Watcher].
func (gateWatcher) Watch(ctx context.Context, _ *Host, t *Target, _ func(Finding)) error {
	g := t.held.gate
	if g == nil {
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-g.ended:
		return g.err
	}
}
