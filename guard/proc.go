package guard

import (
	"errors"
	"strconv"
	"strings"
)

// processes lists the process ids in /proc. That process 1 is not among them
// means that processes are hidden from us.
func processes(host *Host) ([]string, error) {
	names, err := host.FS.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []string
	first := false
	for _, n := range names {
		if _, err := strconv.ParseUint(n, 10, 31); err == nil {
			pids = append(pids, n)
			first = first || n == "1"
		}
	}
	if !first {
		return nil, errors.New("processes of other users are hidden (process 1 is not listed)")
	}
	return pids, nil
}

// processName gives "process 2311 (tapdisk)" and the key "tapdisk.2311". The
// name is what the process itself chose (proc(5), comm).
func processName(host *Host, pid string) (subject, key string) {
	comm, err := attribute(host.FS, "/proc/"+pid+"/comm")
	if err != nil || comm == "" {
		return "process " + pid, "process." + pid
	}
	return "process " + pid + " (" + quote(comm) + ")", strings.ReplaceAll(comm, ":", "_") + "." + pid
}
