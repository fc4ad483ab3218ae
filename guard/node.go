package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// nodeEvery is how often it is asked who wrote to a device's node. Our own writes
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
	host *Host
	node string // the device's, for a person
	self int32

	opens  *os.File // the group that tells of opens, which are read as they come
	writes int      // descriptor of the group that tells of writes, ours among them, which is asked now and then
	ended  chan struct{}

	mu     sync.Mutex
	who    map[int32]Finding // those who opened it, by name: they may be gone when they matter
	opened []int32           // those whom nobody asked for yet
	err    error             // why nobody tells of opens any more
	wrote  *Finding          // the first other process that wrote
}

// nodeLocker has the kernel tell who opens a device from before the second look
// on, which sees who had it open already.
type nodeLocker struct{}

func (nodeLocker) Name() string { return "node" }

// Lock implements [Locker].
func (nodeLocker) Lock(_ context.Context, host *Host, t *Target) (func(context.Context) error, error) {
	if t.ID.Kind != KindBlock {
		return nil, nil
	}
	opens, err := watchNode(t, unix.FAN_OPEN)
	if err != nil {
		return nil, err
	}
	writes, err := watchNode(t, unix.FAN_MODIFY)
	if err != nil {
		return nil, errors.Join(err, unix.Close(opens))
	}
	n := &nodeEvents{
		host: host, node: t.Real, self: int32(t.held.pid), who: map[int32]Finding{}, ended: make(chan struct{}),
		opens: os.NewFile(uintptr(opens), "fanotify"), writes: writes,
	}
	go n.serve()
	t.held.node = n
	return func(context.Context) error {
		err := n.opens.Close()
		<-n.ended
		return errors.Join(err, unix.Close(n.writes))
	}, nil
}

// watchNode gives a fanotify group that tells of one kind of event on the device
// that we hold.
func watchNode(t *Target, event uint64) (group int, err error) {
	group, err = unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_UNLIMITED_QUEUE|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return -1, fmt.Errorf("fanotify_init: %w", err)
	}
	name := "/proc/self/fd/" + strconv.Itoa(t.held.fd())
	if err := unix.FanotifyMark(group, unix.FAN_MARK_ADD, event, unix.AT_FDCWD, name); err != nil {
		return -1, errors.Join(fmt.Errorf("fanotify_mark %s: %w", quote(t.Real), err), unix.Close(group))
	}
	return group, nil
}

// manyOpeners is how many of them are remembered by name.
const manyOpeners = 1000

// serve takes down who opens the node, as long as he is there to be asked for his
// name.
func (n *nodeEvents) serve() {
	defer close(n.ended)
	buf := make([]byte, 4096)
	for {
		got, err := n.opens.Read(buf)
		var events []fanEvent
		if err == nil {
			events, err = parseFanotify(buf[:got])
		}
		for _, e := range events {
			if e.mask&unix.FAN_Q_OVERFLOW != 0 {
				err = errors.New("events were lost")
			}
			if e.pid <= 0 || e.pid == n.self {
				continue
			}
			var f Finding
			f.Subject, f.Key = processName(n.host, strconv.Itoa(int(e.pid)))
			n.mu.Lock()
			if len(n.who) >= manyOpeners {
				clear(n.who)
			}
			n.who[e.pid] = f
			n.opened = append(n.opened, e.pid)
			n.mu.Unlock()
		}
		if err != nil {
			n.mu.Lock()
			n.err = fmt.Errorf("read fanotify: %w", err)
			n.mu.Unlock()
			return
		}
	}
}

// ask gives the processes that opened the node since it was called before, and the
// first that ever wrote, all but ourselves.
func (n *nodeEvents) ask() (opened []int32, wrote *Finding, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	opened, n.opened = n.opened, nil
	buf := make([]byte, 4096)
	for {
		got, err := unix.Read(n.writes, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return opened, n.wrote, n.err
		case err == nil && got == 0:
			err = errors.New("the group ended")
		}
		if err != nil {
			return opened, n.wrote, fmt.Errorf("read fanotify: %w", err)
		}
		events, err := parseFanotify(buf[:got])
		for _, e := range events {
			if e.mask&unix.FAN_Q_OVERFLOW != 0 {
				err = errors.New("read fanotify: events were lost")
			} else if e.pid != n.self && n.wrote == nil {
				n.wrote = n.writer(e.pid)
			}
		}
		if err != nil {
			return opened, n.wrote, err
		}
	}
}

// writer is about a process that wrote to the device beside us. The caller has mu.
func (n *nodeEvents) writer(pid int32) *Finding {
	f, ok := n.who[pid]
	switch {
	case !ok && pid > 0:
		f.Subject, f.Key = processName(n.host, strconv.Itoa(int(pid)))
	case !ok:
		f.Subject, f.Key = "a process of another PID namespace", "process.0"
	}
	f.Code, f.Relation, f.Source = FDWrite, Same, "fanotify on "+quote(n.node)
	f.Detail, f.Remedy = "wrote to it while it was being written", "find out what it did before anything else"
	return &f
}

// nodeWatcher notices who opens a device's node: whoever writes breaks the hold at
// once, whoever could write when he is still there after a few looks. Who reads is
// told of.
type nodeWatcher struct{}

func (nodeWatcher) Name() string { return "node" }

// Watch implements [Watcher].
func (nodeWatcher) Watch(ctx context.Context, _ *Host, t *Target, alarm func(Finding)) error {
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
			alarm(*wrote)
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
