package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// A crowd is how much there is on the host of a benchmark.
type crowd struct {
	domains, disks       int // disks of each domain
	processes, files     int // descriptors of each process
	configurations, loop int
}

// BenchmarkCheck asks for the verdict on a file that nobody uses, which is the
// whole work, on this machine as it is and on a crowded host: a real xenstored,
// real processes and loop devices, configurations in a mount namespace of its
// own. Beside it run what else lists users of a file, and "xenstore-ls -f", which
// reads the same store. Times are medians of the iterations; a peak is in MiB.
//
// No look can be faster than what it is made of: xenstored-ms is the processor time
// of the daemon for one check, on one processor, and descriptors-ms what it takes to
// look up all descriptors and do nothing with them, beside it on another.
func BenchmarkCheck(b *testing.B) {
	for _, tt := range []struct {
		name string
		crowd
	}{
		{"idle", crowd{}},
		{"crowded", crowd{domains: 1000, disks: 2, processes: 500, files: 50, configurations: 2000, loop: 200}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			h := newBenchHost(b, tt.crowd)
			before := h.daemonTime(b)
			imgward := h.measure(b, []string{h.binary, "check", h.free})
			b.ReportMetric(float64(h.daemonTime(b)-before)/1e6/float64(len(imgward.took)), "xenstored-ms/check")
			b.ReportMetric(median(lookUpAll(b)), "descriptors-ms")
			b.ReportMetric(median(imgward.took), "ms/check")
			b.ReportMetric(median(imgward.cpu), "cpu-ms/check")
			b.ReportMetric(float64(imgward.rss>>20), "MiB-peak")
			b.ReportMetric(0, "ns/op")
			for _, peer := range [][]string{{"xenstore-ls", "-f"}, {"lsof", "-w", h.free}, {"fuser", h.free}} {
				if _, err := exec.LookPath(peer[0]); err != nil {
					b.Logf("not here: %s", peer[0])
					continue
				}
				b.ReportMetric(median(h.measure(b, peer).took)/median(imgward.took), "x-"+peer[0])
			}
		})
	}
}

// A benchHost is where a benchmark looks: a mount namespace with an /etc/xen of
// its own, and a xenstored.
type benchHost struct {
	binary, free string
	socket       string // of xenstored
	namespace    int    // the process that keeps it
	env          []string
}

func newBenchHost(b *testing.B, c crowd) *benchHost {
	b.Helper()
	testkit.Need(b, "root", "losetup", "gcc", "xenstore-write", "nsenter", "unshare")
	dir, err := os.MkdirTemp("/var/tmp", "imgward-host.")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	h := &benchHost{binary: filepath.Join(dir, "imgward"), free: filepath.Join(dir, "images", "free-for-all.img")}
	for _, d := range []string{"etc/xen", "images", "work", "xs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	mustRun(b, exec.Command("go", "build", "-o", h.binary, "."))
	sparse(b, h.free)

	d, err := xenstoretest.StartXenstored(filepath.Join(dir, "xs"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Kill() })
	h.socket = d.Socket()
	h.env = append(os.Environ(), "XENSTORED_PATH="+h.socket, "IMGWARD_STATE="+filepath.Join(dir, "state"))

	var dump strings.Builder
	fmt.Fprintf(&dump, "/local/domain/0/name = \"Domain-0\"\n")
	n := 0
	for id := range c.domains {
		name := fmt.Sprintf("guest%04d", id+1)
		fmt.Fprintf(&dump, "/local/domain/%d/name = %q\n", id+1, name)
		for disk := range c.disks {
			image := filepath.Join(dir, "images", fmt.Sprintf("%s-disk%d.img", name, disk))
			sparse(b, image)
			device := "fd:" + fmt.Sprintf("%x", n)
			if n < c.loop {
				loop := attach(b, image)
				var st syscall.Stat_t
				if err := syscall.Stat(loop, &st); err != nil {
					b.Fatal(err)
				}
				device = fmt.Sprintf("7:%x", st.Rdev&0xff|st.Rdev>>12&^0xff)
			}
			n++
			dev := 51712 + 16*disk
			for _, at := range []string{fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", id+1, dev), fmt.Sprintf("/libxl/%d/device/vbd/%d", id+1, dev)} {
				for _, kv := range [][2]string{
					{"backend", fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d", id+1, dev)}, {"frontend", fmt.Sprintf("/local/domain/%d/device/vbd/%d", id+1, dev)},
					{"params", image}, {"physical-device", device}, {"mode", "w"}, {"state", "4"}, {"online", "1"}, {"dev", "xvda"}, {"type", "phy"},
				} {
					fmt.Fprintf(&dump, "%s/%s = %q\n", at, kv[0], kv[1])
				}
			}
		}
	}
	if err := d.Load(strings.NewReader(dump.String())); err != nil {
		b.Fatal(err)
	}
	for i := range c.configurations {
		text := fmt.Sprintf("# a guest\nname = \"guest%04d\"\nmemory = 512\nvcpus = 2\nkernel = \"/boot/vmlinuz\"\ndisk = [\n\t'phy:%s,xvda,w',\n\t'format=raw, vdev=xvdb, access=rw, target=%s',\n]\nvif = [ 'bridge=br0' ]\n",
			i+1, filepath.Join(dir, "images", fmt.Sprintf("guest%04d-disk0.img", i+1)), filepath.Join(dir, "images", fmt.Sprintf("guest%04d-disk1.img", i+1)))
		if err := os.WriteFile(filepath.Join(dir, "etc/xen", fmt.Sprintf("guest%04d.cfg", i+1)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for range c.processes {
		sleeper(b, h.binary, c.files)
	}

	// What configures this machine's own domains, if there are any, is hidden.
	keeper := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc && echo ready && exec sleep infinity`, "sh", dir)
	keeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := keeper.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = keeper.Process.Kill(), keeper.Wait() })
	if n, err := out.Read(make([]byte, 16)); n == 0 {
		b.Fatalf("no mount namespace: %v", err)
	}
	h.namespace = keeper.Process.Pid
	return h
}

// sparse makes an image without any data.
func sparse(b *testing.B, name string) {
	b.Helper()
	f, err := os.Create(name)
	if err == nil {
		err = errors.Join(f.Truncate(1<<20), f.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
}

func attach(b *testing.B, image string) string {
	b.Helper()
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		b.Fatal(err)
	}
	dev := strings.TrimSpace(string(out))
	var n int
	if _, err := fmt.Sscanf(dev, "/dev/loop%d", &n); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = exec.Command("losetup", "--detach", dev).Run()
		// One that is left would make the host less idle; one that somebody has
		// taken since stays (loop(4)).
		if control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err == nil {
			_ = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, n)
			control.Close()
		}
	})
	return dev
}

// daemonTime is the processor time that xenstored has taken, in steps of 10 ms
// (proc_pid_stat(5), utime and stime).
func (h *benchHost) daemonTime(b *testing.B) time.Duration {
	b.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.socket})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var peer *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cerr != nil {
		b.Fatal(errors.Join(err, cerr))
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", peer.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// lookUpAll looks up every descriptor of every process, a few times.
func lookUpAll(b *testing.B) (took []time.Duration) {
	b.Helper()
	for range 5 {
		start := time.Now()
		dirs, err := filepath.Glob("/proc/[0-9]*/fd")
		if err != nil {
			b.Fatal(err)
		}
		for _, dir := range dirs {
			d, err := os.Open(dir)
			if err != nil {
				continue // has ended
			}
			names, _ := d.Readdirnames(-1)
			for _, name := range names {
				var st unix.Statx_t
				_ = unix.Statx(int(d.Fd()), name, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
			}
			d.Close()
		}
		took = append(took, time.Since(start))
	}
	return took
}

// sleeper starts a process that has so many descriptors.
func sleeper(b *testing.B, file string, files int) {
	b.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for range files - 3 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
}

func mustRun(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

type measured struct {
	took, cpu []time.Duration
	rss       int64 // bytes
}

// median is in milliseconds.
func median(ds []time.Duration) float64 {
	slices.Sort(ds)
	return float64(ds[len(ds)/2]) / 1e6
}

// measure runs a command as often as the benchmark iterates. Its exit status
// must be 0, or 1 of a peer that finds nobody.
func (h *benchHost) measure(b *testing.B, argv []string) measured {
	b.Helper()
	var m measured
	for i := 0; i < max(5, b.N); i++ {
		cmd := exec.Command("nsenter", append([]string{"--mount", "--target", fmt.Sprint(h.namespace)}, argv...)...)
		cmd.Env = h.env
		start := time.Now()
		out, err := cmd.Output()
		m.took = append(m.took, time.Since(start))
		var exit *exec.ExitError
		if err != nil && (argv[0] == h.binary || !errors.As(err, &exit) || exit.ExitCode() != 1) {
			b.Fatalf("%v: %v\n%s", argv, err, out)
		}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			m.rss = max(m.rss, usage.Maxrss<<10) // getrusage(2): in KiB
			m.cpu = append(m.cpu, time.Duration(usage.Utime.Nano()+usage.Stime.Nano()))
		}
	}
	return m
}
