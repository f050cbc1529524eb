/* Forks while handles run on other threads: children use what they inherit, and the parent goes on. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vitc_model.h"

enum { CALLERS = 3, CHILDREN = 24, PATIENCE = 100 };

#ifdef __SANITIZE_ADDRESS__
/* The sanitizer's own allocator, which a thread uses before its function begins, is no good in a child that was forked
 * meanwhile. With --wrap=pthread_create a thread is created when it has begun. */
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument);

typedef struct {
  void *(*function)(void *);
  void *argument;
  atomic_int begun;
} beginning;

static void *begin(void *pointer) {
  beginning *its = pointer;
  void *(*function)(void *) = its->function, *argument = its->argument;
  atomic_store(&its->begun, 1); /* gone from here on */
  return function(argument);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
  beginning its = {function, argument, 0};
  int refused = __real_pthread_create(thread, attributes, begin, &its);
  while (!refused && !atomic_load(&its.begun)) sched_yield();
  return refused;
}
#endif

static vitc_info info;
static float *input, *expected;
static vitc_model *busy[CALLERS], *idle;
static atomic_int stop;

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "fork: %s\n", what);
  _exit(2);
}

static size_t output_count(void) { return (size_t)info.batch * (size_t)info.classes; }

static float *outputs(void) {
  float *memory = calloc(output_count(), sizeof *memory);
  need(memory != NULL, "memory");
  return memory;
}

static void need_right(vitc_model *model, float *output, const char *what) {
  memset(output, 0xff, output_count() * sizeof *output);
  need(vitc_run(model, input, output) == VITC_OK, what);
  need(memcmp(output, expected, output_count() * sizeof *output) == 0, "a wrong answer");
}

static vitc_model *create(int32_t threads) {
  const vitc_options options = {sizeof options, threads, VITC_OVERSUBSCRIBE};
  vitc_model *model;
  need(vitc_create_with(&options, &model) == VITC_OK, "create");
  return model;
}

static void *call(void *model) {
  float *output = outputs();
  while (!atomic_load(&stop)) need_right(model, output, "run beside forks");
  free(output);
  return NULL;
}

static void child(float *output) {
  alarm(PATIENCE);
  for (int i = 0; i < CALLERS; i++)
    for (int run = 0; run < 2; run++) need_right(busy[i], output, "run of a handle that ran in the parent");
  vitc_destroy(idle); /* its threads are the parent's */
  need(vitc_run(idle, input, output) == VITC_ERROR_ARGUMENT, "run after it was destroyed in the child");
  vitc_model *own = create(3);
  need_right(own, output, "run of a handle of the child");
  pid_t grandchild = fork();
  if (!grandchild) {
    alarm(PATIENCE);
    need_right(own, output, "run in a child of the child");
    need_right(busy[0], output, "run in a child of the child");
    _exit(0);
  }
  int status = 1;
  need(waitpid(grandchild, &status, 0) == grandchild && status == 0, "the child of the child");
  need_right(own, output, "run after the child forked");
  vitc_destroy(own);
  for (int i = 0; i < CALLERS; i++) vitc_destroy(busy[i]);
  free(output);
  _exit(0);
}

static void observe(void *user, int32_t image, int32_t step, const char *name, const void *data, size_t bytes) {
  (void)name, (void)data, (void)bytes;
  if (image == 0 && step == 0) *(pid_t *)user = fork();
}

int main(void) {
  vitc_get_info(&info);
  size_t count = (size_t)info.batch * (size_t)info.channels * (size_t)info.height * (size_t)info.width;
  input = malloc(count * sizeof *input);
  need(input != NULL, "memory");
  for (size_t i = 0; i < count; i++) input[i] = (float)((i * 2654435761u >> 8) % 2001) / 500 - 2;
  expected = outputs();
  idle = create(1);
  need(vitc_run(idle, input, expected) == VITC_OK, "run");
  vitc_destroy(idle);
  idle = create(3);
  float *output = outputs();
  pthread_t threads[CALLERS];
  for (int i = 0; i < CALLERS; i++) {
    busy[i] = create(1 + i);
    need(pthread_create(&threads[i], NULL, call, busy[i]) == 0, "pthread_create");
  }
  for (int i = 0; i < CHILDREN; i++) {
    pid_t made = fork();
    if (!made) child(output);
    int status = 1;
    need(made > 0 && waitpid(made, &status, 0) == made && status == 0, "a child");
  }
  atomic_store(&stop, 1);
  for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  need_right(idle, output, "run after the forks");

  /* Both sides of a fork within a run end that run. */
  pid_t within = -1;
  need(vitc_run_observed(idle, input, output, observe, &within) == VITC_OK, "a run that forks");
  need(memcmp(output, expected, output_count() * sizeof *output) == 0, "a wrong answer of a run that forks");
  if (!within) _exit(0);
  int status = 1;
  need(waitpid(within, &status, 0) == within && status == 0, "the child of a run");
  for (int i = 0; i < CALLERS; i++) vitc_destroy(busy[i]);
  vitc_destroy(idle);
  free(input), free(expected), free(output);
  puts("fine");
  return 0;
}
