/* vitc: the driver of a compiled model. Calls the kernels of the generated tables in order, on one workspace, with a
 * small pool of threads that sleeps between runs. Needs the C library and Linux futexes, nothing else. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vitc_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

#define CACHE_LINE 64
#define FUTEX_WAIT_PRIVATE 128 /* of linux/futex.h, which not every C library brings */
#define FUTEX_WAKE_PRIVATE 129
#define SPINS_BEFORE_YIELD 4096
#define ARCH_REQ_XCOMP_PERM 0x1023 /* of asm/prctl.h, likewise */
#define XFEATURE_XTILEDATA 18

struct vitc_model {
  _Alignas(CACHE_LINE) atomic_uint epoch; /* counts runs; workers sleep on it */
  _Alignas(CACHE_LINE) atomic_uint arrived;
  _Alignas(CACHE_LINE) atomic_uint phase;
  _Alignas(CACHE_LINE) atomic_int stopping;
  vitc_model *next; /* of the handles that are alive; this and the next two belong to `handles` */
  int busy, doomed; /* running; to be freed when it has run */
  int32_t threads;
  int32_t started; /* workers to join */
  unsigned char *workspace;
  const float *input;
  float *output;
  vitc_observer observer;
  void *user;
  pthread_t worker[VITC_MAX_THREADS];
  struct {
    vitc_model *model;
    int32_t index;
  } seat[VITC_MAX_THREADS];
};

/* --- CPU features ------------------------------------------------------------------------------------------------ */

static char refusal_text[160] = "This CPU lacks a feature that the library was compiled for.";

#if defined(__x86_64__)
static int cpu_has(const char *name) {
  static const struct {
    const char *name;
    unsigned leaf, reg, bit, state; /* state: XCR0 bits that the system must have enabled */
  } known[] = {
      {"ssse3", 1, 2, 9, 0},         {"sse4_2", 1, 2, 20, 0},
      {"popcnt", 1, 2, 23, 0},       {"fma", 1, 2, 12, 0x6},
      {"avx2", 7, 1, 5, 0x6},        {"bmi2", 7, 1, 8, 0},
      {"avx512f", 7, 1, 16, 0xe6},   {"avx512dq", 7, 1, 17, 0xe6},
      {"avx512bw", 7, 1, 30, 0xe6},  {"avx512vl", 7, 1, 31, 0xe6},
      {"avx512_vpopcntdq", 7, 2, 14, 0xe6},
      {"amx_tile", 7, 3, 24, 0x60000}, {"amx_int8", 7, 3, 25, 0x60000},
  };
  unsigned basic[4] = {0};
  __get_cpuid(1, &basic[0], &basic[1], &basic[2], &basic[3]);
  unsigned long long state = 0;
  if (basic[2] & (1u << 27)) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    state = ((unsigned long long)high << 32) | low;
  }
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    if (strcmp(known[i].name, name) != 0) continue;
    unsigned reg[4] = {0};
    if (!__get_cpuid_count(known[i].leaf, 0, &reg[0], &reg[1], &reg[2], &reg[3])) return 0;
    return (reg[known[i].reg] >> known[i].bit & 1u) && (state & known[i].state) == known[i].state;
  }
  return 0;
}
#else
static int cpu_has(const char *name) {
  static const struct {
    const char *name;
    unsigned bit; /* of AT_HWCAP */
  } known[] = {
#if defined(__aarch64__)
      {"asimd", 1}, {"asimddp", 20},
#else
      {"neon", 12}, {"vfpv4", 16},
#endif
  };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, name) == 0) return (getauxval(AT_HWCAP) >> known[i].bit) & 1ul;
  return 0;
}
#endif

static int cpu_fits(void) {
  for (const char *const *feature = vitc_cpu_features; *feature; feature++) {
    if (cpu_has(*feature)) continue;
    static const char text[] = "This CPU lacks the feature that the library was compiled for: ";
    size_t length = strlen(*feature);
    if (sizeof text + length < sizeof refusal_text) {
      memcpy(refusal_text, text, sizeof text - 1);
      memcpy(refusal_text + sizeof text - 1, *feature, length + 1);
    }
    return 0;
  }
  return 1;
}

/* Tiles are 8 KB more to save at a context switch, so Linux gives them to a process that asks. */
static int tiles_permitted(void) {
  if (!vitc_uses_tiles) return 1;
#if defined(__x86_64__)
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return 1;
#endif
  static const char text[] =
      "Linux does not permit this process to use AMX tiles: it is older than 5.16, or a signal stack is too small.";
  memcpy(refusal_text, text, sizeof text);
  return 0;
}

/* --- threads ----------------------------------------------------------------------------------------------------- */

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

/* All threads of a run meet here between two kernels. They spin: a kernel takes microseconds. */
static void barrier(vitc_model *model) {
  if (model->threads == 1) return;
  unsigned phase = atomic_load_explicit(&model->phase, memory_order_relaxed);
  unsigned last = (unsigned)model->threads - 1;
  if (atomic_fetch_add_explicit(&model->arrived, 1, memory_order_acq_rel) == last) {
    atomic_store_explicit(&model->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&model->phase, phase + 1, memory_order_release);
    return;
  }
  for (unsigned spins = 0; atomic_load_explicit(&model->phase, memory_order_acquire) == phase;) {
    if (++spins < SPINS_BEFORE_YIELD) relax();
    else sched_yield();
  }
}

static void run_share(vitc_model *model, int32_t index) {
  const vitc_info *info = &vitc_model_info;
  size_t image_elements = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
  for (int32_t image = 0; image < info->batch; image++) {
    vitc_frame frame = {model->input + (size_t)image * image_elements, model->workspace};
    for (int32_t i = 0; i < info->steps; i++) {
      const vitc_step *step = &vitc_steps[i];
      int64_t tasks = step->tasks;
      int32_t begin = (int32_t)(tasks * index / model->threads);
      int32_t end = (int32_t)(tasks * (index + 1) / model->threads);
      if (begin < end) step->run(&frame, begin, end);
      barrier(model);
      if (model->observer) {
        if (index == 0)
          model->observer(model->user, image, i, step->name, model->workspace + step->offset,
                          step->bytes);
        barrier(model);
      }
    }
    if (index == 0)
      memcpy(model->output + (size_t)image * (size_t)info->classes,
             model->workspace + vitc_logits_offset, (size_t)info->classes * sizeof(float));
    barrier(model);
  }
}

static void pin_to_seat(int32_t index) {
  cpu_set_t allowed, own;
  CPU_ZERO(&allowed);
  CPU_ZERO(&own);
  if (syscall(SYS_sched_getaffinity, 0, sizeof allowed, &allowed) <= 0) return;
  int32_t seat = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || seat++ != index) continue;
    CPU_SET(cpu, &own);
    syscall(SYS_sched_setaffinity, 0, sizeof own, &own);
    return;
  }
}

static void futex_wait(atomic_uint *word, unsigned value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_workers(vitc_model *model) {
  atomic_fetch_add_explicit(&model->epoch, 1, memory_order_release);
  syscall(SYS_futex, &model->epoch, FUTEX_WAKE_PRIVATE, VITC_MAX_THREADS, NULL, NULL, 0);
}

static void *work(void *seat_pointer) {
  struct {
    vitc_model *model;
    int32_t index;
  } *seat = seat_pointer;
  vitc_model *model = seat->model;
  pin_to_seat(seat->index);
  for (unsigned seen = 0;;) {
    unsigned epoch;
    while ((epoch = atomic_load_explicit(&model->epoch, memory_order_acquire)) == seen)
      futex_wait(&model->epoch, seen);
    seen = epoch;
    if (atomic_load(&model->stopping)) return NULL;
    run_share(model, seat->index);
  }
}

/* --- handles -----------------------------------------------------------------------------------------------------
 * A handle is looked up before it is touched, so that one that was destroyed is an error, whoever still has it. */

static atomic_flag handles_in_use = ATOMIC_FLAG_INIT;
static vitc_model *handles;

static void lock_handles(void) {
  while (atomic_flag_test_and_set_explicit(&handles_in_use, memory_order_acquire)) sched_yield();
}

static void unlock_handles(void) {
  atomic_flag_clear_explicit(&handles_in_use, memory_order_release);
}

/* Where the list holds `model`; the place of its end if it does not. */
static vitc_model **find_handle(const vitc_model *model) {
  vitc_model **place = &handles;
  while (*place && *place != model) place = &(*place)->next;
  return place;
}

static vitc_status begin_run(vitc_model *model) {
  lock_handles();
  vitc_status status = !*find_handle(model) ? VITC_ERROR_ARGUMENT : model->busy ? VITC_ERROR_BUSY : VITC_OK;
  if (!status) model->busy = 1;
  unlock_handles();
  return status;
}

/* --- interface --------------------------------------------------------------------------------------------------- */

void vitc_get_info(vitc_info *info) {
  if (info) *info = vitc_model_info;
}

const char *vitc_status_text(vitc_status status) {
  switch (status) {
    case VITC_OK: return "No error.";
    case VITC_ERROR_ARGUMENT: return "A pointer is null or no live handle, or the thread count is not 1 to 64.";
    case VITC_ERROR_MEMORY: return "There is not enough memory for the workspace.";
    case VITC_ERROR_CPU: return refusal_text;
    case VITC_ERROR_THREAD: return "A thread could not be started.";
    case VITC_ERROR_BUSY: return "This handle is running in another thread.";
  }
  return "Unknown status.";
}

static void free_model(vitc_model *model) {
  if (model->started) {
    atomic_store(&model->stopping, 1);
    wake_workers(model);
    for (int32_t i = 1; i <= model->started; i++) pthread_join(model->worker[i], NULL);
  }
  free(model->workspace);
  free(model);
}

void vitc_destroy(vitc_model *model) {
  if (!model) return;
  lock_handles();
  vitc_model **place = find_handle(model);
  int known = *place != NULL, running = 0;
  if (known) {
    *place = model->next;
    running = model->doomed = model->busy;
  }
  unlock_handles();
  if (known && !running) free_model(model);
}

vitc_status vitc_create(int32_t threads, vitc_model **result) {
  if (!result) return VITC_ERROR_ARGUMENT;
  *result = NULL;
  if (threads < 1 || threads > VITC_MAX_THREADS) return VITC_ERROR_ARGUMENT;
  if (!cpu_fits() || !tiles_permitted()) return VITC_ERROR_CPU;
  void *memory = NULL;
  if (posix_memalign(&memory, CACHE_LINE, sizeof(vitc_model))) return VITC_ERROR_MEMORY;
  memset(memory, 0, sizeof(vitc_model));
  vitc_model *model = memory;
  model->threads = threads;
  void *workspace = NULL;
  if (posix_memalign(&workspace, CACHE_LINE, vitc_model_info.workspace_bytes)) {
    free(model);
    return VITC_ERROR_MEMORY;
  }
  /* Padding is read by kernels and must hold finite numbers; first-touch also maps the pages now. */
  memset(workspace, 0, vitc_model_info.workspace_bytes);
  model->workspace = workspace;
  for (int32_t i = 1; i < threads; i++) {
    model->seat[i].model = model;
    model->seat[i].index = i;
    if (pthread_create(&model->worker[i], NULL, work, &model->seat[i])) {
      free_model(model);
      return VITC_ERROR_THREAD;
    }
    model->started = i;
  }
  lock_handles();
  model->next = handles;
  handles = model;
  unlock_handles();
  *result = model;
  return VITC_OK;
}

vitc_status vitc_run_observed(vitc_model *model, const float *input, float *output,
                              vitc_observer observer, void *user) {
  if (!model || !input || !output) return VITC_ERROR_ARGUMENT;
  vitc_status status = begin_run(model);
  if (status) return status;
  model->input = input;
  model->output = output;
  model->observer = observer;
  model->user = user;
  if (model->threads > 1) wake_workers(model);
  run_share(model, 0);
  lock_handles();
  model->busy = 0;
  int doomed = model->doomed;
  unlock_handles();
  if (doomed) free_model(model);
  return VITC_OK;
}

vitc_status vitc_run(vitc_model *model, const float *input, float *output) {
  return vitc_run_observed(model, input, output, NULL, NULL);
}
