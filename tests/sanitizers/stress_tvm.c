/* Calls the entry for TVM the way careless peers do; plays the part of TVM's runtime itself. */
#include "vitc_tvm.c"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { CALLERS = 6, RUNS = 20 };

static _Thread_local int raised;

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
  if (kind[0] && message[0]) raised++;
}

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "stress_tvm: %s\n", what);
  exit(2);
}

static int64_t shapes[3][4];
static int32_t ranks[3] = {4, 2, 2};
static size_t bytes[3];
static float *input, *expected;

typedef struct {
  dl_tensor tensor[3];
  tvm_any argument[4];
} call;

static call fresh(float *output, unsigned char *trace) {
  void *data[3] = {input, output, trace};
  call made = {0};
  for (int i = 0; i < 3; i++) {
    made.tensor[i].data = data[i];
    made.tensor[i].device.device_type = DEVICE_CPU;
    made.tensor[i].ndim = ranks[i];
    made.tensor[i].dtype.code = i < 2 ? CODE_FLOAT : CODE_UINT;
    made.tensor[i].dtype.bits = i < 2 ? 32 : 8;
    made.tensor[i].dtype.lanes = 1;
    made.tensor[i].shape = shapes[i];
  }
  return made;
}

static int give(call *made, int32_t tensors, int64_t threads) {
  for (int32_t i = 0; i < tensors; i++) {
    made->argument[i].type_index = TYPE_DLTENSOR;
    made->argument[i].value.pointer = &made->tensor[i];
  }
  made->argument[tensors].type_index = TYPE_INT;
  made->argument[tensors].value.integer = threads;
  tvm_any result = {0};
  int32_t count = threads == 1 ? tensors : tensors + 1;
  int before = raised;
  int status = tensors == 2 ? __tvm_ffi_vitc_run(NULL, made->argument, count, &result)
                            : __tvm_ffi_vitc_trace(NULL, made->argument, count, &result);
  need(status == 0 ? raised == before : raised == before + 1, "an error is raised once, and only then");
  return status;
}

static void *serve(void *number) {
  float *output = malloc(bytes[1]);
  need(output != NULL, "memory");
  for (int i = 0; i < RUNS; i++) {
    call made = fresh(output, NULL);
    if (give(&made, 2, 1 + ((int64_t)(size_t)number + i) % 3) == 0)
      need(memcmp(output, expected, bytes[1]) == 0, "a wrong answer on a thread");
  }
  free(output);
  return NULL;
}

int main(void) {
  const vitc_info *info = &vitc_model_info;
  int64_t image[4] = {info->batch, info->channels, info->height, info->width};
  memcpy(shapes[0], image, sizeof image);
  shapes[1][0] = shapes[2][0] = info->batch;
  shapes[1][1] = info->classes;
  shapes[2][1] = traced_bytes(vitc_programs, 0);
  bytes[0] = (size_t)(image[0] * image[1] * image[2] * image[3]) * sizeof(float);
  bytes[1] = (size_t)(shapes[1][0] * shapes[1][1]) * sizeof(float);
  bytes[2] = (size_t)(shapes[2][0] * shapes[2][1]);
  input = malloc(bytes[0]), expected = malloc(bytes[1]);
  unsigned char *trace = malloc(bytes[2]);
  float *output = malloc(bytes[1]);
  need(input && expected && trace && output, "memory");
  for (size_t i = 0; i < bytes[0] / sizeof(float); i++) input[i] = (float)((i * 2654435761u >> 8) % 2001) / 500 - 2;

  call made = fresh(expected, trace);
  need(give(&made, 2, 1) == 0, "a run");
  made = fresh(output, trace);
  need(give(&made, 3, 2) == 0 && memcmp(output, expected, bytes[1]) == 0, "a traced run");
  const int64_t wrong[] = {0, -1, VITC_MAX_THREADS + 1, INT64_MAX, INT64_MIN, 1ll << 32 | 1};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) need(give(&made, 2, wrong[i]) != 0, "a wrong thread count");
  for (int i = 0; i < 3; i++) {
    int64_t shape[4], strides[4] = {7, 7, 7, 7};
    made = fresh(output, trace), made.tensor[i].data = NULL, made.tensor[i].byte_offset = 64;
    need(give(&made, 3, 1) != 0, "a tensor without data");
    made = fresh(output, trace), made.tensor[i].ndim++;
    need(give(&made, 3, 1) != 0, "a wrong rank");
    made = fresh(output, trace), made.tensor[i].dtype.bits = 16;
    need(give(&made, 3, 1) != 0, "a wrong type");
    made = fresh(output, trace), made.tensor[i].dtype.lanes = 4;
    need(give(&made, 3, 1) != 0, "vectors");
    made = fresh(output, trace), made.tensor[i].device.device_type = 2;
    need(give(&made, 3, 1) != 0, "another device");
    made = fresh(output, trace), made.tensor[i].strides = strides;
    need(give(&made, 3, 1) != 0, "strides");
    memcpy(shape, shapes[i], sizeof shape), shape[1]--;
    made = fresh(output, trace), made.tensor[i].shape = shape;
    need(give(&made, 3, 1) != 0, "a wrong size");
  }
  tvm_any result = {0}, nothing[4] = {{0}};
  for (int32_t count = 0; count < 5; count++)
    need(__tvm_ffi_vitc_run(NULL, nothing, count, &result) != 0, "arguments that are no tensors");

  pthread_t threads[CALLERS];
  for (size_t i = 0; i < CALLERS; i++) need(pthread_create(&threads[i], NULL, serve, (void *)i) == 0, "pthread_create");
  for (size_t i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  vitc_destroy(model);
  free(input), free(expected), free(output), free(trace);
  puts("fine");
  return 0;
}
