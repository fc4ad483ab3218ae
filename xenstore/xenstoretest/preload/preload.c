/*
 * preload.c lets a xenstored run on a machine without Xen.
 *
 * The daemon's store and its socket need no hypervisor; only its rings to the
 * domains do. This library, named in LD_PRELOAD, stands in for the hypervisor's
 * side: an event channel that never fires, a ring for domain 0 in which nothing
 * is ever written, and an answer to "does domain N exist", which is yes. It
 * serves the C xenstored and oxenstored of Xen 4.17.
 *
 * Build: gcc -shared -fPIC -O2 -o preload.so preload.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Handles are opaque to the daemon; they only must not be null. */
static char handle;

/* xenevtchn.h: every channel binds to port 1; the descriptor never gets readable. */
void *xenevtchn_open(void *log, unsigned flags) { return &handle; }
void *xenevtchn_fdopen(void *log, int fd, unsigned flags) { return &handle; }
int xenevtchn_close(void *h) { return 0; }
int xenevtchn_fd(void *h)
{
	static int fd = -1;
	if (fd < 0)
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd;
}
int xenevtchn_bind_interdomain(void *h, uint32_t dom, uint32_t port) { return 1; }
int xenevtchn_bind_virq(void *h, unsigned virq) { return 1; }
int xenevtchn_notify(void *h, uint32_t port) { return 0; }
int xenevtchn_unbind(void *h, uint32_t port) { return 0; }
int xenevtchn_unmask(void *h, uint32_t port) { return 0; }
int xenevtchn_pending(void *h) { return -1; }

/* xengnttab.h: a null handle is fatal to the daemon, a grant that cannot be mapped is not. */
void *xengnttab_open(void *log, unsigned flags) { return &handle; }
int xengnttab_close(void *h) { return 0; }
int xengnttab_set_max_grants(void *h, uint32_t n) { return 0; }
void *xengnttab_map_grant_ref(void *h, uint32_t dom, uint32_t ref, int prot) { return NULL; }
int xengnttab_unmap(void *h, void *addr, uint32_t n) { return 0; }

/* xenctrl.h: every domain asked for exists; xc_dominfo_t begins with its number. */
void *xc_interface_open(void *log, void *dombuild, unsigned flags) { return &handle; }
int xc_interface_close(void *h) { return 0; }
int xc_domain_getinfo(void *h, uint32_t first, unsigned max, uint32_t *info)
{
	info[0] = first;
	return 1;
}

/* A file of size bytes that begins with text, instead of one of the kernel's. */
static int fake(const char *text, off_t size)
{
	int fd = memfd_create("xsd", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, size) || pwrite(fd, text, strlen(text), 0) < 0)
		return -1;
	return fd;
}

/* open: domain 0's event channel port and the page of its ring are files. */
static int open_hook(const char *name, const char *path, int flags, mode_t mode)
{
	int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
	if (!strcmp(path, "/proc/xen/xsd_port"))
		return fake("1", 1);
	if (!strcmp(path, "/proc/xen/xsd_kva"))
		return fake("", 4096);
	return real(path, flags, mode);
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list ap; \
		va_start(ap, flags); \
		mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0; \
		va_end(ap); \
		return open_hook(#name, path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

/* oxenstored gives up if it may not raise this limit, which it does not need here. */
int setrlimit(__rlimit_resource_t what, const struct rlimit *r) { return 0; }
