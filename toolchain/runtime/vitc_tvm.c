/* vitc: entry for the TVM runtime, so that TVM RPC can load and time the library.
 *
 * module["vitc_run"](input, output, threads = 1): tensors fp32 [batch, channels, height, width] and [batch, classes] in
 * this machine's memory. module["vitc_trace"](input, output, trace, threads = 1): the same, and the buffers of all steps,
 * one after the other, in uint8 [batch, bytes of an image]. module["vitc_read"](text): the file below /proc or /sys that
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
enum { CODE_UINT = 1, CODE_FLOAT = 2 };

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

/* Data of a dense tensor in this machine's memory, or null. */
static void *tensor_data(const tvm_any *argument, const int64_t *shape, int32_t ndim, uint8_t code, uint8_t bits) {
  const dl_tensor *tensor = NULL;
  if (argument->type_index == TYPE_DLTENSOR)
    tensor = argument->value.pointer;
  else if (argument->type_index == TYPE_TENSOR && argument->value.pointer)
    tensor = (const dl_tensor *)((const char *)argument->value.pointer + sizeof(tvm_object));
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

/* Run on `tensors` tensors (input, output, and a trace if there are three) and maybe a thread count. */
static int run(const tvm_any *arguments, int32_t count, int32_t tensors, const char *usage, tvm_any *result) {
  const vitc_info *info = &vitc_model_info;
  if (count != tensors && !(count == tensors + 1 && arguments[tensors].type_index == TYPE_INT))
    return raise_error("TypeError", usage);
  int64_t input_shape[4] = {info->batch, info->channels, info->height, info->width};
  int64_t output_shape[2] = {info->batch, info->classes}, trace_shape[2] = {info->batch, 0};
  for (int32_t i = 0; i < info->steps; i++) trace_shape[1] += (int64_t)vitc_steps[i].bytes;
  float *input = tensor_data(&arguments[0], input_shape, 4, CODE_FLOAT, 32);
  float *output = tensor_data(&arguments[1], output_shape, 2, CODE_FLOAT, 32);
  unsigned char *trace = tensors == 3 ? tensor_data(&arguments[2], trace_shape, 2, CODE_UINT, 8) : NULL;
  if (!input || !output || (tensors == 3 && !trace))
    return raise_error("ValueError",
                       "vitc_run wants dense fp32 CPU tensors: input [batch, channels, height, width], "
                       "output [batch, classes], as the model's manifest says; vitc_trace a third one of "
                       "uint8 [batch, bytes of all steps].");
  int64_t threads = count > tensors ? arguments[tensors].value.integer : 1;
  if (!vitc_try_lock(&in_use, vitc_process()))
    return raise_error("RuntimeError", vitc_status_text(VITC_ERROR_BUSY));
  vitc_status status = VITC_OK;
  if (threads < 1 || threads > VITC_MAX_THREADS) status = VITC_ERROR_ARGUMENT;
  if (!status && (!model || model_threads != threads)) {
    vitc_destroy(model);
    status = vitc_create((int32_t)threads, &model);
    model_threads = (int32_t)threads;
  }
  if (!status) status = vitc_run_observed(model, input, output, trace ? copy_buffer : NULL, &trace);
  vitc_unlock(&in_use);
  if (status) return raise_error("RuntimeError", vitc_status_text(status));
  return none(result);
}

#define ENTRY __attribute__((visibility("default"))) int

ENTRY __tvm_ffi_vitc_run(void *self, const tvm_any *arguments, int32_t count, tvm_any *result) {
  (void)self;
  return run(arguments, count, 2, "vitc_run(input, output, threads = 1)", result);
}

ENTRY __tvm_ffi_vitc_trace(void *self, const tvm_any *arguments, int32_t count, tvm_any *result) {
  (void)self;
  return run(arguments, count, 3, "vitc_trace(input, output, trace, threads = 1)", result);
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
