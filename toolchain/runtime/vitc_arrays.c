/* vitc-run: arrays of ports in .npy files, little-endian and in C order. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vitc_runner.h"

enum { MOST_HEADER = 65536, WRITTEN_HEADER = 256 };

static const struct {
  const char *descr, *said;
  size_t bytes;
} types[] = {[VITC_FLOAT32] = {"<f4", "fp32", 4}, [VITC_INT32] = {"<i4", "int32", 4}, [VITC_UINT8] = {"|u1", "uint8", 1}};

size_t array_bytes(const vitc_port *port, int64_t n) {
  size_t bytes = types[port->dtype].bytes;
  for (int32_t i = 0; i < port->axes; i++) bytes *= (size_t)(port->shape[i] == VITC_EXTENT ? n : port->shape[i]);
  return bytes;
}

/* The sizes of a port as a person reads them. */
static const char *wanted_sizes(const vitc_port *port) {
  static char text[32 * VITC_MAX_AXES];
  int used = 0;
  text[0] = 0;
  for (int32_t i = 0; i < port->axes; i++) {
    const char *between = i ? " x " : "";
    used += port->shape[i] == VITC_EXTENT
                ? snprintf(text + used, sizeof text - (size_t)used, "%sn", between)
                : snprintf(text + used, sizeof text - (size_t)used, "%s%lld", between, (long long)port->shape[i]);
  }
  return text;
}

static char *read_header(FILE *file, const char *path) {
  unsigned char head[12];
  if (fread(head, 1, 10, file) != 10 || memcmp(head, "\x93NUMPY", 6) != 0) die("%s: not a .npy file", path);
  size_t length = (size_t)head[8] | (size_t)head[9] << 8;
  if (head[6] > 1) {
    if (fread(head + 10, 1, 2, file) != 2) die("%s: the file is truncated", path);
    length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
  }
  if (length > MOST_HEADER) die("%s: its header is too long", path);
  char *text = malloc(length + 1);
  if (!text || fread(text, 1, length, file) != length) die("%s: the file is truncated", path);
  text[length] = 0;
  return text;
}

/* Sizes of the axes that a header states; -1 for another number of axes. */
static int32_t read_shape(const char *header, const char *path, int64_t *shape, int32_t axes) {
  const char *at = strstr(header, "'shape': (");
  if (!at) die("%s: its header has no shape", path);
  at += strlen("'shape': (");
  uint64_t count = 1;
  for (int32_t i = 0; i < axes; i++) {
    char *end;
    shape[i] = strtoll(at, &end, 10);
    if (end == at) return -1;
    if (shape[i] < 0 || shape[i] > INT32_MAX) die("%s: its header has no sensible shape", path);
    count *= shape[i] ? (uint64_t)shape[i] : 1;
    if (count > (uint64_t)1 << 28) die("%s: more than 2^28 values", path);
    at = end + strspn(end, ", ");
  }
  return *at == ')' ? axes : -1;
}

static void need_same(const port_array *array, const char *what, int64_t found, int64_t *known) {
  if (*known < 0) *known = found;
  if (*known != found)
    die("%s has %lld %s, another input has %lld", array->path, (long long)found, what, (long long)*known);
}

void read_array(port_array *array, int64_t *images, int64_t *n) {
  static const char *const words[] = {"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"};
  const vitc_port *port = &array->port;
  const char *path = array->path;
  int32_t axes = port->axes + (port->per_image != 0);
  int64_t shape[VITC_MAX_AXES + 1];
  FILE *file = fopen(path, "rb");
  if (!file) die("%s: %s", path, strerror(errno));
  char *header = read_header(file, path);
  char descr[16];
  snprintf(descr, sizeof descr, "'%s'", types[port->dtype].descr);
  if (!strstr(header, descr) || !strstr(header, "'fortran_order': False"))
    die("%s: wanted %s in C order", path, types[port->dtype].said);
  if (read_shape(header, path, shape, axes) < 0) die("%s: wanted %s dimensions", path, words[axes]);
  free(header);
  if (port->per_image) {
    if (!shape[0]) die("%s: it holds no image", path);
    need_same(array, "images", shape[0], images);
  }
  size_t count = port->per_image ? (size_t)shape[0] : 1;
  for (int32_t i = 0; i < port->axes; i++) {
    int64_t size = shape[i + (port->per_image != 0)];
    if (port->shape[i] == VITC_EXTENT) need_same(array, "of the axis n", size, n);
    else if (size != port->shape[i]) die("%s has another size, %s wants %s", path, port->name, wanted_sizes(port));
    count *= (size_t)size;
  }
  size_t bytes = types[port->dtype].bytes;
  array->data = malloc(count ? count * bytes : 1);
  if (!array->data) die("%s: not enough memory", path);
  if (fread(array->data, bytes, count, file) != count) die("%s: the file is truncated", path);
  fclose(file);
}

void need_finite(const port_array *array, int64_t images, int64_t n) {
  const vitc_port *port = &array->port;
  size_t count = (port->per_image ? (size_t)images : 1) * array_bytes(port, n) / sizeof(float);
  for (size_t i = 0; port->dtype == VITC_FLOAT32 && i < count; i++) {
    uint32_t bits;
    memcpy(&bits, array->data + i * sizeof bits, sizeof bits);
    if ((bits & 0x7f800000) != 0x7f800000) continue;
    int64_t index[VITC_MAX_AXES];
    size_t left = i;
    for (int32_t axis = port->axes - 1; axis >= 0; axis--) {
      size_t size = (size_t)(port->shape[axis] == VITC_EXTENT ? n : port->shape[axis]);
      index[axis] = (int64_t)(left % size);
      left /= size;
    }
    char place[24 * (VITC_MAX_AXES + 1)];
    int used = port->per_image ? snprintf(place, sizeof place, "%zu", left) : 0;
    for (int32_t axis = 0; axis < port->axes; axis++)
      used += snprintf(place + used, sizeof place - (size_t)used, "%s%lld", used ? ", " : "", (long long)index[axis]);
    die("%s: holds %s at [%s], wanted finite numbers", array->path, bits & 0x7fffff ? "nan" : bits >> 31 ? "-inf" : "inf", place);
  }
}

void write_array(const port_array *array, int64_t images, int64_t n) {
  const vitc_port *port = &array->port;
  const char *path = array->path;
  char aside[PATH_BYTES], header[WRITTEN_HEADER];
  struct stat status;
  int through = !lstat(path, &status) && !S_ISREG(status.st_mode);
  if (snprintf(aside, sizeof aside, through ? "%s" : "%s.%ld.part", path, (long)getpid()) >= (int)sizeof aside)
    die("%s: the path is too long", path);
  FILE *file = fopen(aside, "wb");
  if (!file) die("%s: %s", path, strerror(errno));
  memset(header, ' ', sizeof header);
  memcpy(header, "\x93NUMPY\x01\x00\xf6\x00", 10);
  size_t used = 10, count = port->per_image ? (size_t)images : 1;
  used += (size_t)snprintf(header + used, sizeof header - used, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                           types[port->dtype].descr);
  if (port->per_image) used += (size_t)snprintf(header + used, sizeof header - used, "%lld, ", (long long)images);
  for (int32_t i = 0; i < port->axes; i++) {
    int64_t size = port->shape[i] == VITC_EXTENT ? n : port->shape[i];
    used += (size_t)snprintf(header + used, sizeof header - used, "%lld, ", (long long)size);
  }
  used += (size_t)snprintf(header + used, sizeof header - used, "), }");
  header[used] = ' ';
  header[sizeof header - 1] = '\n';
  count *= array->bytes;
  int failed = fwrite(header, 1, sizeof header, file) != sizeof header || fwrite(array->data, 1, count, file) != count;
  failed |= fclose(file) != 0;
  if (!failed && !through) failed = rename(aside, path) != 0;
  if (!failed) return;
  int reason = errno;
  if (!through) unlink(aside);
  die("%s: %s", path, strerror(reason));
}
