// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Gives QEMU a /dev/udmabuf where the host has none.
 *
 * A virtio-gpu that takes the guest's own memory (blob=on) is refused by QEMU 10 unless it can open /dev/udmabuf, by
 * which it would hand that memory to a display of the host. These guests have no display, so that nothing is ever
 * handed on: a descriptor that refuses every request does, and QEMU says a warning for it.
 *
 * Preloaded into QEMU, and into nothing else. Every other path is opened as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

typedef int (*opens)(const char *, int, ...);

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
	opens real = (opens)dlsym(RTLD_NEXT, name);
	int fd = real(path, flags, mode);

	if (fd < 0 && strcmp(path, "/dev/udmabuf") == 0)
		fd = real("/dev/null", flags, mode);
	return fd;
}

/* The mode is there only where a file may be made; elsewhere it is read by nobody. */
#define OPENS(name)                                                     \
	int name(const char *path, int flags, ...)                      \
	{                                                               \
		mode_t mode = 0;                                        \
		if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
			va_list more;                                   \
			va_start(more, flags);                          \
			mode = va_arg(more, mode_t);                    \
			va_end(more);                                   \
		}                                                       \
		return opened(#name, path, flags, mode);                \
	}

OPENS(open)
OPENS(open64)

/* What a fortified program calls where no mode is given. */
int __open_2(const char *path, int flags)
{
	return opened("open", path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
	return opened("open64", path, flags, 0);
}
