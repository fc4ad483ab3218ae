package guard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// nodeEvery is how often it is asked who opened a device's node. Our own writes
// are events, too; those that nobody asked for yet are one.
const nodeEvery = 50 * time.Millisecond

// nodeEvents are how the kernel tells who opens and writes a device through its
// node (fanotify(7), FAN_REPORT_FID, by which a device is not opened for the
// event). A permission event, which could refuse, there is not for devices.
//
// Not told are opens through another node of the same device, those of the kernel
// itself (loop devices, Xen's block backend), and writes to a mapping, before which
// there is an open. It needs CAP_SYS_ADMIN and a /dev that can name its files, as
// that of every kernel since 5.14 can.
type nodeEvents struct {
	group int // descriptor of the fanotify group
	self  int32

	mu    sync.Mutex
	wrote *int32 // the first other process that wrote
}

// nodeLocker has the kernel tell who opens a device from before the second look
// on, which sees who had it open already.
type nodeLocker struct{}

func (nodeLocker) Name() string { return "node" }

// Lock implements [Locker].
func (nodeLocker) Lock(_ context.Context, _ *Host, t *Target) (func(context.Context) error, error) {
	if t.ID.Kind != KindBlock {
		return nil, nil
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_UNLIMITED_QUEUE|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(t.held.fd())
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN|unix.FAN_MODIFY, unix.AT_FDCWD, name); err != nil {
		return nil, errors.Join(fmt.Errorf("fanotify_mark %s: %w", quote(t.Real), err), unix.Close(fd))
	}
	t.held.node = &nodeEvents{group: fd, self: int32(t.held.pid)}
	return func(context.Context) error { return unix.Close(fd) }, nil
}

// ask gives the processes that opened the node since it was called before, and the
// first that ever wrote, all but ourselves.
func (n *nodeEvents) ask() (opened []int32, wrote *int32, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	buf := make([]byte, 4096)
	for {
		got, err := unix.Read(n.group, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return opened, n.wrote, nil
		case err == nil && got == 0:
			err = errors.New("the group ended")
		}
		if err != nil {
			return opened, n.wrote, fmt.Errorf("read fanotify: %w", err)
		}
		events, err := parseFanotify(buf[:got])
		if err != nil {
			return opened, n.wrote, err
		}
		for _, e := range events {
			switch {
			case e.mask&unix.FAN_Q_OVERFLOW != 0:
				return opened, n.wrote, errors.New("read fanotify: events were lost")
			case e.pid == n.self:
			case e.mask&unix.FAN_MODIFY != 0 && n.wrote == nil:
				n.wrote = &e.pid
			case e.mask&unix.FAN_OPEN != 0 && e.pid > 0:
				opened = append(opened, e.pid)
			}
		}
	}
}

// wroteFinding is about a process that wrote to the device beside us.
func wroteFinding(host *Host, t *Target, pid int32) Finding {
	f := Finding{Code: FDWrite, Relation: Same, Subject: "a process of another PID namespace", Key: "process.0"}
	if pid > 0 {
		f.Subject, f.Key = processName(host, strconv.Itoa(int(pid)))
	}
	f.Detail, f.Source, f.Remedy = "wrote to it while it was being written", "fanotify on "+quote(t.Real), "find out what it did before anything else"
	return f
}

// nodeWatcher notices who opens a device's node: whoever writes breaks the hold at
// once, whoever could write when he is still there after a few looks. Who reads is
// told of.
type nodeWatcher struct{}

func (nodeWatcher) Name() string { return "node" }

// Watch implements [Watcher].
func (nodeWatcher) Watch(ctx context.Context, host *Host, t *Target, alarm func(Finding)) error {
	n := t.held.node
	if n == nil {
		<-ctx.Done()
		return nil
	}
	var looks sync.WaitGroup
	defer looks.Wait()
	tick := time.NewTicker(nodeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		opened, wrote, err := n.ask()
		if wrote != nil {
			alarm(wroteFinding(host, t, *wrote))
			return nil
		}
		if err != nil {
			return err
		}
		for _, pid := range opened {
			looks.Go(func() {
				if f := t.held.rescan.opener(ctx, strconv.Itoa(int(pid))); f != nil {
					alarm(*f)
				}
			})
		}
	}
}
