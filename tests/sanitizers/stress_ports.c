/* Calls entries with ports that fit and ports that do not. Every array is its own allocation, so that a byte read or
 * written beyond one is seen. Links with the driver and tests/runtime/hand_made.py. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitc_model.h"

enum { CALLERS = 4, RUNS = 40, BATCH = 2, PORTS = 5, ROWS = 5 };

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "stress: %s\n", what);
  exit(2);
}

static void *allocate(size_t bytes) {
  unsigned char *memory = malloc(bytes ? bytes : 1);
  need(memory != NULL, "memory");
  for (size_t i = 0; i < bytes; i++) memory[i] = 0;
  return memory;
}

/* Arrays of the entry `search` for an extent. */
typedef struct {
  vitc_array array[PORTS];
  vitc_call call;
} search;

static void make(search *made, int64_t n) {
  static const char *const names[PORTS] = {"scores", "picked", "picks", "codes", "query"};
  const size_t words[PORTS] = {(size_t)(BATCH * n), BATCH * 6, BATCH * 3, (size_t)(4 * n), BATCH * 4};
  for (int i = 0; i < PORTS; i++) {
    made->array[i] = (vitc_array){names[i], allocate(words[i] * 4), words[i] * 4};
  }
  made->call = (vitc_call){sizeof made->call, "search", made->array, PORTS, n, NULL, NULL};
}

static void drop(search *made) {
  for (int i = 0; i < PORTS; i++) free(made->array[i].data);
}

static void fill(search *made, int64_t n) {
  float *codes = made->array[3].data, *query = made->array[4].data;
  int32_t *picks = made->array[2].data;
  for (int64_t i = 0; i < 4 * n; i++) codes[i] = (float)(i % 7);
  for (int i = 0; i < BATCH * 4; i++) query[i] = (float)(i - 3);
  for (int i = 0; i < BATCH * 3; i++) picks[i] = (i + (int32_t)n) % ROWS;
}

static void need_right(const search *made, int64_t n) {
  const float *scores = made->array[0].data, *picked = made->array[1].data;
  const int32_t *picks = made->array[2].data;
  for (int64_t image = 0; image < BATCH; image++)
    for (int64_t i = 0; i < n; i++) {
      float wanted = 0;
      for (int k = 0; k < 4; k++) wanted += (float)((i * 4 + k) % 7) * (float)(image * 4 + k - 3);
      need(scores[image * n + i] == wanted, "a wrong score");
    }
  for (int i = 0; i < BATCH * 3; i++)
    for (int k = 0; k < 2; k++) need(picked[2 * i + k] == (float)((2 * picks[i] + k) * (2 * picks[i] + k)), "a wrong row");
}

static void *serve(void *number) {
  vitc_model *model;
  const vitc_options options = {sizeof options, 1 + (int32_t)(size_t)number % 3, VITC_OVERSUBSCRIBE};
  need(vitc_create_with(&options, &model) == VITC_OK, "create");
  for (int64_t n = 0; n < RUNS; n++) {
    search made;
    make(&made, n);
    fill(&made, n);
    need(vitc_run_ports(model, &made.call) == VITC_OK, "a run");
    need_right(&made, n);
    drop(&made);
  }
  vitc_destroy(model);
  return NULL;
}

static void misuse(void) {
  enum { N = 9 };
  vitc_model *model;
  search made;
  need(vitc_create(2, &model) == VITC_OK, "create");
  make(&made, N);
  fill(&made, N);
  const search right = made;
  need(vitc_run_ports(NULL, &made.call) == VITC_ERROR_ARGUMENT, "no model");
  need(vitc_run_ports(model, NULL) == VITC_ERROR_ARGUMENT, "no call");
  for (int i = 0; i < PORTS; i++) {
    made.array[i].bytes -= 4;
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_PORT, "too short");
    made.array[i].bytes = SIZE_MAX;
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_PORT, "too long");
    made = right, made.call.arrays = made.array;
    made.array[i].data = NULL;
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_ARGUMENT, "no data");
    made = right, made.call.arrays = made.array;
    made.array[i].port = NULL;
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_ARGUMENT, "no name");
    made.array[i].port = made.array[(i + 1) % PORTS].port;
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_PORT, "a name twice");
    made = right, made.call.arrays = made.array;
  }
  const int32_t counts[] = {-1, 0, PORTS - 1, PORTS + 1, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    made.call.count = counts[i];
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_PORT, "a wrong count");
  }
  made.call.count = PORTS;
  const int64_t extents[] = {-1, 0, N - 1, N + 1, INT32_MAX, 1ll << 32, INT64_MAX, INT64_MIN};
  for (size_t i = 0; i < sizeof extents / sizeof *extents; i++) {
    made.call.n = extents[i];
    need(vitc_run_ports(model, &made.call) == VITC_ERROR_PORT, "a wrong extent");
  }
  made.call.n = N;
  int32_t *picks = made.array[2].data;
  for (int i = 0; i < BATCH * 3; i++) {
    int32_t before = picks[i];
    const int32_t beyond[] = {-1, ROWS, INT32_MAX, INT32_MIN};
    for (size_t j = 0; j < sizeof beyond / sizeof *beyond; j++) {
      picks[i] = beyond[j];
      need(vitc_run_ports(model, &made.call) == VITC_ERROR_INDEX, "an index beyond its limit");
    }
    picks[i] = before;
  }
  need(vitc_run_ports(model, &made.call) == VITC_OK, "a run after all that");
  need_right(&made, N);
  drop(&made);
  vitc_destroy(model);
}

int main(void) {
  misuse();
  pthread_t threads[CALLERS];
  for (size_t i = 0; i < CALLERS; i++) need(pthread_create(&threads[i], NULL, serve, (void *)i) == 0, "pthread_create");
  for (size_t i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  puts("fine");
  return 0;
}
