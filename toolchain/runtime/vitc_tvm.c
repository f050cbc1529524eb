/* vitc: entry for the TVM runtime, so that TVM RPC can load and time the library.
 *
 * module["vitc_run"]([entry = 0,] tensors.., threads = 1): a dense tensor in this machine's memory for each port of the entry,
 * inputs first; for an image classifier fp32 [batch, channels, height, width] and [batch, classes]. module["vitc_trace"] wants
 * one more, uint8 [batch, bytes of an image], for what all steps write, one after the other. module["vitc_read"](text): the file below /proc or /sys that
 * uint8 [4096] names, in its place, so that a client learns on what it ran. Written against the public C interface of
 * tvm-ffi (its c_api.h and dlpack.h), whose few types are repeated here; TVM's symbols are weak, so the library loads
 * where there is no TVM. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vitc_lock.h"
#include "vitc_tables.h"

typedef struct {
  int32_t device_type, device_id;
} dl_device;

typedef struct {
  void *data;
  dl_device device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} dl_tensor;

typedef struct {
  uint64_t reference_count;
  int32_t type_index;
  uint32_t padding;
  union {
    void (*deleter)(void *self, int flags);
    int64_t align;
  } end;
} tvm_object;

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t integer;
    void *pointer;
  } value;
} tvm_any;

enum { TYPE_NONE = 0, TYPE_INT = 1, TYPE_DLTENSOR = 7, TYPE_TENSOR = 70, DEVICE_CPU = 1 };
enum { CODE_INT = 0, CODE_UINT = 1, CODE_FLOAT = 2 };

extern void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message)
    __attribute__((weak));

static vitc_model *model;
static int32_t model_threads;
static vitc_lock in_use;

static int raise_error(const char *kind, const char *message) {
  if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}

static int none(tvm_any *result) {
  result->type_index = TYPE_NONE;
  result->padding = 0;
  result->value.integer = 0;
  return 0;
}

static const dl_tensor *as_tensor(const tvm_any *argument) {
  if (argument->type_index == TYPE_DLTENSOR) return argument->value.pointer;
  if (argument->type_index != TYPE_TENSOR || !argument->value.pointer) return NULL;
  return (const dl_tensor *)((const char *)argument->value.pointer + sizeof(tvm_object));
}

/* Data of a dense tensor in this machine's memory, or null. */
static void *tensor_data(const tvm_any *argument, const int64_t *shape, int32_t ndim, uint8_t code, uint8_t bits) {
  const dl_tensor *tensor = as_tensor(argument);
  if (!tensor || !tensor->data || tensor->ndim != ndim || tensor->device.device_type != DEVICE_CPU ||
      tensor->dtype.code != code || tensor->dtype.bits != bits || tensor->dtype.lanes != 1)
    return NULL;
  int64_t expected = 1;
  for (int32_t i = ndim - 1; i >= 0; i--) {
    if (tensor->shape[i] != shape[i]) return NULL;
    if (tensor->strides && shape[i] != 1 && tensor->strides[i] != expected) return NULL;
    expected *= shape[i];
  }
  return (char *)tensor->data + tensor->byte_offset;
}

static void copy_buffer(void *user, int32_t image, int32_t step, const char *name, const void *data, size_t bytes) {
  (void)image;
  (void)step;
  (void)name;
  unsigned char **at = user;
  memcpy(*at, data, bytes);
  *at += bytes;
}

/* The array that a port gets; the first port that has an extent says how long it is. */
static int as_array(const vitc_port *port, const tvm_any *argument, int64_t *n, vitc_array *array) {
  static const struct {
    uint8_t code, bits;
  } types[] = {[VITC_FLOAT32] = {CODE_FLOAT, 32}, [VITC_INT32] = {CODE_INT, 32}, [VITC_UINT8] = {CODE_UINT, 8}};
  const dl_tensor *tensor = as_tensor(argument);
  int64_t shape[VITC_MAX_AXES + 1];
  int32_t axes = 0;
  size_t bytes;
  if (port->per_image) shape[axes++] = vitc_model_info.batch;
  if (!tensor || tensor->ndim != axes + port->axes) return 0;
  for (int32_t i = 0; i < port->axes; i++, axes++) {
    shape[axes] = port->shape[i];
    if (port->shape[i] != VITC_EXTENT) continue;
    if (*n < 0) *n = tensor->shape[axes];
    shape[axes] = *n;
  }
  array->port = port->name;
  array->data = tensor_data(argument, shape, axes, types[port->dtype].code, types[port->dtype].bits);
  if (!array->data || !vitc_port_bytes(port, *n, &bytes)) return 0;
  array->bytes = bytes * (port->per_image ? (size_t)vitc_model_info.batch : 1);
  return 1;
}

static int64_t traced_bytes(const vitc_program *program, int64_t n) {
  int64_t total = 0;
  for (int32_t i = 0; i < program->facts.steps; i++)
    for (int32_t j = 0; j < program->steps[i].count; j++) {
      const vitc_written *written = &program->written[program->steps[i].first + j];
      size_t bytes = written->bytes;
      if (written->port >= 0) vitc_port_bytes(&program->ports[written->port], n, &bytes);
      total += (int64_t)bytes;
    }
  return total;
}

/* Run on the tensors of all ports, and a trace if `traced`. */
static int run(const tvm_any *arguments, int32_t count, int traced, const char *usage, tvm_any *result) {
  int64_t entry = 0, n = -1, threads = 1;
  if (count && arguments->type_index == TYPE_INT) {
    entry = arguments->value.integer;
    arguments++;
    count--;
  }
  if (entry < 0 || entry >= vitc_model_info.entries)
    return raise_error("ValueError", vitc_status_text(VITC_ERROR_PORT));
  const vitc_program *program = &vitc_programs[entry];
  int32_t tensors = program->facts.ports + traced;
  if (count == tensors + 1 && arguments[tensors].type_index == TYPE_INT) threads = arguments[tensors].value.integer;
  else if (count != tensors) return raise_error("TypeError", usage);
  vitc_array arrays[VITC_MAX_PORTS];
  int fits = 1;
  for (int32_t i = 0; i < program->facts.ports; i++)
    fits &= as_array(&program->ports[i], &arguments[i], &n, &arrays[i]);
  unsigned char *trace = NULL;
  if (fits && traced) {
    const int64_t shape[2] = {vitc_model_info.batch, traced_bytes(program, n)};
    trace = tensor_data(&arguments[tensors - 1], shape, 2, CODE_UINT, 8);
    fits = trace != NULL;
  }
  if (!fits)
    return raise_error("ValueError",
                       "vitc_run wants a dense CPU tensor for each port of the entry, inputs first, of the types and shapes "
                       "in the model's manifest with the batch in front (for an image: fp32 [batch, channels, height, width] "
                       "and [batch, classes]); vitc_trace one more of uint8 [batch, bytes of all steps].");
  if (!vitc_try_lock(&in_use, vitc_process()))
    return raise_error("RuntimeError", vitc_status_text(VITC_ERROR_BUSY));
  vitc_status status = VITC_OK;
  if (threads < 1 || threads > VITC_MAX_THREADS) status = VITC_ERROR_ARGUMENT;
  if (!status && (!model || model_threads != threads)) {
    vitc_destroy(model);
    status = vitc_create((int32_t)threads, &model);
    model_threads = (int32_t)threads;
  }
  const vitc_call call = {sizeof call, program->facts.name, arrays, program->facts.ports, n < 0 ? 0 : n,
                          trace ? copy_buffer : NULL, &trace};
  if (!status) status = vitc_run_ports(model, &call);
  vitc_unlock(&in_use);
  if (status) return raise_error("RuntimeError", vitc_status_text(status));
  return none(result);
}

#define ENTRY __attribute__((visibility("default"))) int

ENTRY __tvm_ffi_vitc_run(void *self, const tvm_any *arguments, int32_t count, tvm_any *result) {
  (void)self;
  return run(arguments, count, 0, "vitc_run([entry = 0,] a tensor for each port.., threads = 1)", result);
}

ENTRY __tvm_ffi_vitc_trace(void *self, const tvm_any *arguments, int32_t count, tvm_any *result) {
  (void)self;
  return run(arguments, count, 1, "vitc_trace([entry = 0,] a tensor for each port.., trace, threads = 1)", result);
}

/* Fill `text`, a path, with the first bytes of that file and zeros, by system calls: the runner's loader knows no others. */
ENTRY __tvm_ffi_vitc_read(void *self, const tvm_any *arguments, int32_t count, tvm_any *result) {
  (void)self;
  enum { TEXT = 4096 };
  const int64_t shape[1] = {TEXT};
  char *text = count == 1 ? tensor_data(&arguments[0], shape, 1, CODE_UINT, 8) : NULL;
  if (!text || text[TEXT - 1]) return raise_error("TypeError", "vitc_read(text): uint8 [4096] with a path and a zero");
  int inside = !memcmp(text, "/proc/", 6) || !memcmp(text, "/sys/", 5);
  for (int i = 1; i < TEXT; i++) inside &= text[i - 1] != '.' || text[i] != '.';
  if (!inside)
    return raise_error("ValueError", "vitc_read reads below /proc and /sys only");
  long file = syscall(SYS_openat, AT_FDCWD, text, O_RDONLY | O_CLOEXEC), got = 1;
  memset(text, 0, TEXT);
  for (long at = 0; file >= 0 && got > 0 && at < TEXT; at += got) got = syscall(SYS_read, file, text + at, TEXT - at);
  if (file >= 0) syscall(SYS_close, file);
  return none(result);
}
