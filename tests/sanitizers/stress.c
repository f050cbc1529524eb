/* Uses a model the way careless programs do. Links with the driver, the tables and the kernels of a small model. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitc_model.h"

enum { CALLERS = 6, RUNS = 25, LOOPS = 40 };

static vitc_info info;
static float *input, *expected;

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "stress: %s\n", what);
  exit(2);
}

static size_t output_count(void) { return (size_t)info.batch * (size_t)info.classes; }

static float *outputs(void) {
  float *memory = calloc(output_count(), sizeof *memory);
  need(memory != NULL, "memory");
  return memory;
}

static void need_right(const float *output, const char *what) {
  need(memcmp(output, expected, output_count() * sizeof *output) == 0, what);
}

/* With as many threads as asked for, whatever the machine. */
static vitc_status create(int32_t threads, vitc_model **model) {
  const vitc_options options = {sizeof options, threads, VITC_OVERSUBSCRIBE};
  return vitc_create_with(&options, model);
}

/* Own handles on own threads: right answers, again and again. */
static void *call(void *number) {
  vitc_model *model;
  float *output = outputs();
  need(create(1 + (int32_t)(size_t)number % 3, &model) == VITC_OK, "create on a thread");
  for (int i = 0; i < RUNS; i++) {
    memset(output, 0xff, output_count() * sizeof *output);
    need(vitc_run(model, input, output) == VITC_OK, "run on a thread");
    need_right(output, "a wrong answer on a thread");
  }
  vitc_destroy(model);
  free(output);
  return NULL;
}

static vitc_model *shared;

/* One handle on many threads: each run is either right or refused. */
static void *call_shared(void *unused) {
  (void)unused;
  float *output = outputs();
  for (int i = 0; i < RUNS; i++) {
    vitc_status status = vitc_run(shared, input, output);
    need(status == VITC_OK || status == VITC_ERROR_BUSY, "run of a shared handle");
    if (status == VITC_OK) need_right(output, "a wrong answer of a shared handle");
  }
  free(output);
  return NULL;
}

static void *call_until_destroyed(void *unused) {
  (void)unused;
  float *output = outputs();
  vitc_status status;
  while ((status = vitc_run(shared, input, output)) == VITC_OK) need_right(output, "a wrong answer at the end");
  need(status == VITC_ERROR_ARGUMENT, "a run after the end");
  free(output);
  return NULL;
}

static void on_threads(void *(*body)(void *)) {
  pthread_t threads[CALLERS];
  for (size_t i = 0; i < CALLERS; i++)
    need(pthread_create(&threads[i], NULL, body, (void *)i) == 0, "pthread_create");
  for (size_t i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
}

typedef struct {
  vitc_model *model;
  int32_t steps;
  size_t sum;
} seen;

static void observe(void *user, int32_t image, int32_t step, const char *name, const void *data,
                    size_t bytes) {
  seen *what = user;
  need(image >= 0 && image < info.batch && step >= 0 && step < info.steps && name && bytes, "observer");
  for (size_t i = 0; i < bytes; i++) what->sum += ((const unsigned char *)data)[i];
  if (!what->steps++)
    need(vitc_run(what->model, input, (float *)(void *)&what->sum) == VITC_ERROR_BUSY, "a run within a run");
}

static void misuse(void) {
  float *output = outputs();
  vitc_model *model = (vitc_model *)output;
  need(vitc_create(1, NULL) == VITC_ERROR_ARGUMENT, "create without a result");
  const int32_t wrong[] = {0, -1, VITC_MAX_THREADS + 1, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    need(vitc_create(wrong[i], &model) == VITC_ERROR_ARGUMENT && !model, "a wrong thread count");
  const vitc_options options[] = {{0, 1, 0}, {sizeof *options, 0, 0}, {sizeof *options, 1, 4}};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    need(vitc_create_with(&options[i], &model) == VITC_ERROR_ARGUMENT && !model, "a wrong option");
  need(vitc_create_with(NULL, &model) == VITC_ERROR_ARGUMENT, "no options");
  need(vitc_threads(NULL) == 0 && vitc_threads((vitc_model *)output) == 0, "threads of no handle");
  need(vitc_run(NULL, input, output) == VITC_ERROR_ARGUMENT, "run without a model");
  need(create(2, &model) == VITC_OK, "create");
  need(vitc_run(model, NULL, output) == VITC_ERROR_ARGUMENT, "run without input");
  need(vitc_run(model, input, NULL) == VITC_ERROR_ARGUMENT, "run without output");
  seen what = {model, 0, 0};
  need(vitc_run_observed(model, input, output, observe, &what) == VITC_OK, "an observed run");
  need(what.steps == info.steps * info.batch, "every step is seen");
  need_right(output, "a wrong answer of an observed run");
  vitc_destroy(model);
  vitc_destroy(NULL);
  vitc_get_info(NULL);
  for (int status = -3; status < 10; status++)
    need(vitc_status_text((vitc_status)status)[0] != 0, "a status without text");
  free(output);
}

/* Destroyed from within a run, and twice more from elsewhere: freed once, when the run has ended. */
static void destroy_in_flight(void *user, int32_t image, int32_t step, const char *name, const void *data,
                              size_t bytes) {
  (void)name, (void)data, (void)bytes;
  if (image || step) return;
  vitc_destroy(*(vitc_model **)user);
  vitc_destroy(*(vitc_model **)user);
}

static void *destroy_shared(void *unused) {
  (void)unused;
  vitc_destroy(shared);
  return NULL;
}

static void destroyed(void) {
  float *output = outputs();
  vitc_model *model;
  for (int32_t threads = 1; threads < 4; threads++) {
    need(create(threads, &model) == VITC_OK, "create to destroy");
    need(vitc_run_observed(model, input, output, destroy_in_flight, &model) == VITC_OK, "a run that is destroyed");
    need_right(output, "a wrong answer of a destroyed run");
    need(vitc_run(model, input, output) == VITC_ERROR_ARGUMENT, "a run after it was destroyed");
    vitc_destroy(model);
  }
  free(output);
  for (int i = 0; i < LOOPS; i++) {
    pthread_t runner;
    need(create(2, &shared) == VITC_OK, "create to destroy on threads");
    need(pthread_create(&runner, NULL, call_until_destroyed, NULL) == 0, "pthread_create");
    on_threads(destroy_shared);
    pthread_join(runner, NULL);
  }
}

int main(void) {
  vitc_get_info(&info);
  size_t count = (size_t)info.batch * (size_t)info.channels * (size_t)info.height * (size_t)info.width;
  input = malloc(count * sizeof *input);
  need(input != NULL, "memory");
  for (size_t i = 0; i < count; i++) input[i] = (float)((i * 2654435761u >> 8) % 2001) / 500 - 2;
  expected = outputs();
  vitc_model *model;
  need(vitc_create(1, &model) == VITC_OK, "create");
  need(vitc_run(model, input, expected) == VITC_OK, "run");
  vitc_destroy(model);
  misuse();
  for (int32_t i = 0; i < LOOPS; i++) {
    need(create(1 + i % 5, &model) == VITC_OK, "create in a loop");
    if (i % 2) {
      float *output = outputs();
      need(vitc_run(model, input, output) == VITC_OK, "run in a loop");
      need_right(output, "a wrong answer in a loop");
      free(output);
    }
    vitc_destroy(model);
  }
  on_threads(call);
  need(create(2, &shared) == VITC_OK, "create to share");
  on_threads(call_shared);
  vitc_destroy(shared);
  destroyed();
  free(input);
  free(expected);
  puts("fine");
  return 0;
}
