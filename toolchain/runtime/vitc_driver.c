/* vitc: the driver of a compiled model. Calls the kernels of the generated tables in order, on one workspace, with a
 * small pool of threads that soon sleeps when there is no work. Needs the C library and Linux futexes, nothing else. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vitc_lock.h"
#include "vitc_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

#define CACHE_LINE 64
#define FUTEX_WAIT_PRIVATE 128 /* of linux/futex.h, which not every C library brings */
#define FUTEX_WAKE_PRIVATE 129
#define ARCH_REQ_XCOMP_PERM 0x1023 /* of asm/prctl.h, likewise */
#define XFEATURE_XTILEDATA 18

/* A waiting thread looks this often before it sleeps, some tens of microseconds: longer than most steps take, and than
 * it takes to wake up. It gives its processor away in between, where another thread may wait for it. */
#if defined(__x86_64__)
enum { LOOKS = 1024, LOOKS_BEFORE_YIELD = 64 };
#else
enum { LOOKS = 8192, LOOKS_BEFORE_YIELD = 512 };
#endif

typedef struct {
  _Alignas(CACHE_LINE) atomic_uint taken; /* the last turn whose share was taken */
  vitc_model *model;
  int32_t index;
} vitc_seat;

struct vitc_model {
  /* A step that several threads compute is a turn. Each has a share of it, and may take that of this turn only. */
  _Alignas(CACHE_LINE) atomic_uint turn;
  atomic_int asleep; /* whether a worker may sleep until `turn` changes */
  _Alignas(CACHE_LINE) atomic_uint done; /* shares of this turn */
  atomic_int caller_asleep; /* whether the caller may sleep until `done` changes */
  _Alignas(CACHE_LINE) atomic_int stopping;
  const vitc_step *step; /* of this turn; like its tasks and the frame, written before the turn begins */
  int32_t tasks;
  vitc_frame frame;
  vitc_model *next; /* of the handles that are alive; this and the next three belong to `handles` */
  int busy, doomed; /* running; to be freed when it has run */
  unsigned process; /* whose threads the workers are */
  int32_t threads;
  int32_t started; /* workers to join */
  uint32_t flags;
  unsigned char *workspace;
  pthread_t worker[VITC_MAX_THREADS];
  vitc_seat seat[VITC_MAX_THREADS];
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
      {"avx2", 7, 1, 5, 0x6},        {"bmi1", 7, 1, 3, 0},
      {"bmi2", 7, 1, 8, 0},
      {"avx512f", 7, 1, 16, 0xe6},   {"avx512dq", 7, 1, 17, 0xe6},
      {"avx512bw", 7, 1, 30, 0xe6},  {"avx512vl", 7, 1, 31, 0xe6},
      {"avx512_vpopcntdq", 7, 2, 14, 0xe6}, {"avx512_vnni", 7, 2, 11, 0xe6},
      {"avx512ifma", 7, 1, 21, 0xe6}, {"avx512vbmi", 7, 2, 1, 0xe6},
      {"avx512_vbmi2", 7, 2, 6, 0xe6}, {"avx512_bitalg", 7, 2, 12, 0xe6},
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

static void futex_wait(atomic_uint *word, unsigned value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, VITC_MAX_THREADS, NULL, NULL, 0);
}

static void look_again(int looks) {
  if (looks % LOOKS_BEFORE_YIELD) relax();
  else sched_yield();
}

/* Compute a share of a turn, unless another thread has taken it or the turn is over. */
static void take_share(vitc_model *model, int32_t share, unsigned turn) {
  unsigned last = turn - 1;
  if (!atomic_compare_exchange_strong_explicit(&model->seat[share].taken, &last, turn, memory_order_acquire,
                                               memory_order_relaxed))
    return;
  int64_t tasks = model->tasks;
  int32_t begin = (int32_t)(tasks * share / model->threads);
  int32_t end = (int32_t)(tasks * (share + 1) / model->threads);
  if (begin < end) model->step->run(&model->frame, begin, end);
  if (atomic_fetch_add(&model->done, 1) + 1 == (unsigned)model->threads && atomic_exchange(&model->caller_asleep, 0))
    futex_wake(&model->done);
}

static void begin_turn(vitc_model *model, unsigned turn) {
  atomic_store(&model->turn, turn);
  if (atomic_exchange(&model->asleep, 0)) futex_wake(&model->turn);
}

/* Compute a step on all threads. The caller of the run takes every share whose worker has not come by then, because it
 * still wakes up, or waits for a processor, or is no more: the caller never waits for a thread that does not compute. */
static void compute_together(vitc_model *model) {
  unsigned turn = atomic_load_explicit(&model->turn, memory_order_relaxed) + 1, shares = (unsigned)model->threads;
  atomic_store_explicit(&model->done, 0, memory_order_relaxed);
  begin_turn(model, turn);
  for (int32_t share = 0; share < model->threads; share++) take_share(model, share, turn);
  for (int looks = 1; looks < LOOKS; looks++) {
    if (atomic_load_explicit(&model->done, memory_order_acquire) == shares) return;
    look_again(looks);
  }
  for (unsigned done;;) {
    atomic_store(&model->caller_asleep, 1);
    if ((done = atomic_load(&model->done)) == shares) break;
    futex_wait(&model->done, done);
  }
  atomic_store_explicit(&model->caller_asleep, 0, memory_order_relaxed);
}

/* --- ports ------------------------------------------------------------------------------------------------------- */

static const size_t item_bytes[] = {[VITC_FLOAT32] = sizeof(float), [VITC_INT32] = sizeof(int32_t), [VITC_UINT8] = 1};

/* What a run is given and gives: of each port, where it begins and how far it is to the next image. */
typedef struct {
  const vitc_program *program;
  unsigned char *data[VITC_MAX_PORTS];
  size_t bytes[VITC_MAX_PORTS];
  int64_t n;
} vitc_bound;

int vitc_port_bytes(const vitc_port *port, int64_t n, size_t *bytes) {
  size_t total = item_bytes[port->dtype];
  for (int32_t i = 0; i < port->axes; i++) {
    size_t size = (size_t)(port->shape[i] == VITC_EXTENT ? n : port->shape[i]);
    if (__builtin_mul_overflow(total, size, &total)) return 0;
  }
  *bytes = total;
  return 1;
}

static int32_t find_port(const vitc_program *program, const char *name) {
  int32_t i = 0;
  while (i < program->facts.ports && strcmp(program->ports[i].name, name)) i++;
  return i;
}

static const vitc_program *find_program(const char *name) {
  for (int32_t i = 0; i < vitc_model_info.entries; i++)
    if (!name || !strcmp(vitc_programs[i].facts.name, name)) return &vitc_programs[i];
  return NULL;
}

static int indices_fit(const vitc_port *port, const unsigned char *data, size_t bytes) {
  if (!port->limit) return 1;
  for (size_t at = 0; at < bytes; at += sizeof(int32_t)) {
    int32_t index;
    memcpy(&index, data + at, sizeof index);
    if (index < 0 || index >= port->limit) return 0;
  }
  return 1;
}

/* Find the port of every array, and look at all that is given. */
static vitc_status bind_ports(const vitc_call *call, vitc_bound *bound) {
  const vitc_program *program = bound->program = find_program(call->entry);
  bound->n = call->n;
  if (!program || call->count != program->facts.ports || call->n < 0 || call->n > INT32_MAX) return VITC_ERROR_PORT;
  memset(bound->data, 0, sizeof bound->data);
  int extended = 0;
  for (int32_t i = 0; i < call->count; i++) {
    const vitc_array *array = &call->arrays[i];
    if (!array->port || !array->data) return VITC_ERROR_ARGUMENT;
    int32_t at = find_port(program, array->port);
    if (at == program->facts.ports || bound->data[at]) return VITC_ERROR_PORT;
    const vitc_port *port = &program->ports[at];
    size_t images = port->per_image ? (size_t)vitc_model_info.batch : 1, bytes, whole;
    if (!vitc_port_bytes(port, call->n, &bytes) || __builtin_mul_overflow(bytes, images, &whole) || whole != array->bytes)
      return VITC_ERROR_PORT;
    if (at < program->facts.inputs && !indices_fit(port, array->data, whole)) return VITC_ERROR_INDEX;
    for (int32_t axis = 0; axis < port->axes; axis++) extended |= port->shape[axis] == VITC_EXTENT;
    bound->data[at] = array->data;
    bound->bytes[at] = bytes;
  }
  return extended || !call->n ? VITC_OK : VITC_ERROR_PORT;
}

/* Take an output out of its buffer. */
static void give(const vitc_copy *copy, const vitc_port *port, const vitc_frame *frame) {
  const unsigned char *from = frame->workspace + copy->offset;
  unsigned char *to = frame->port[copy->port];
  size_t size = item_bytes[port->dtype], length = (size_t)copy->length;
  for (int32_t run = 0; run < copy->runs; run++) {
    size_t start = copy->starts ? (size_t)copy->starts[run] : (size_t)run * (size_t)copy->stride;
    if (copy->bits)
      for (size_t bit = start; bit < start + length; bit++) *to++ = from[bit / 8] >> bit % 8 & 1;
    else {
      memcpy(to, from + start * size, length * size);
      to += length * size;
    }
  }
}

static void show(const vitc_bound *bound, const vitc_frame *frame, const vitc_call *call, int32_t image, int32_t index) {
  const vitc_step *step = &bound->program->steps[index];
  for (int32_t i = step->first; i < step->first + step->count; i++) {
    const vitc_written *written = &bound->program->written[i];
    if (written->port < 0)
      call->observer(call->user, image, index, written->name, frame->workspace + written->offset, written->bytes);
    else
      call->observer(call->user, image, index, written->name, frame->port[written->port], bound->bytes[written->port]);
  }
}

static void compute(vitc_model *model, const vitc_bound *bound, const vitc_call *call) {
  const vitc_program *program = bound->program;
  for (int32_t image = 0; image < vitc_model_info.batch; image++) {
    vitc_frame *frame = &model->frame;
    frame->workspace = model->workspace;
    for (int32_t i = 0; i < program->facts.ports; i++)
      frame->port[i] = bound->data[i] + (program->ports[i].per_image ? (size_t)image * bound->bytes[i] : 0);
    for (int32_t i = 0; i < program->facts.steps; i++) {
      model->step = &program->steps[i];
      model->tasks = model->step->tasks == VITC_EXTENT ? (int32_t)bound->n : model->step->tasks;
      if (model->threads == 1 || model->tasks <= 1) model->step->run(frame, 0, model->tasks);
      else compute_together(model);
      if (call->observer) show(bound, frame, call, image, i);
    }
    for (int32_t i = 0; i < program->copy_count; i++)
      give(&program->copies[i], &program->ports[program->copies[i].port], frame);
  }
}

/* The next turn after `seen`. */
static unsigned await_turn(vitc_model *model, unsigned seen) {
  unsigned turn;
  for (int looks = 1; looks < LOOKS; looks++) {
    if ((turn = atomic_load_explicit(&model->turn, memory_order_acquire)) != seen) return turn;
    look_again(looks);
  }
  for (;;) {
    atomic_store(&model->asleep, 1);
    if ((turn = atomic_load(&model->turn)) != seen) return turn;
    futex_wait(&model->turn, seen);
  }
}

static int allowed_processors(cpu_set_t *allowed) {
  CPU_ZERO(allowed);
  if (syscall(SYS_sched_getaffinity, 0, sizeof *allowed, allowed) <= 0) return 0;
  int count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) count += CPU_ISSET(cpu, allowed) != 0;
  return count;
}

/* Keep this thread on one processor of those that it may use. */
static void pin_to(int32_t index) {
  cpu_set_t allowed, own;
  int count = allowed_processors(&allowed), seat = 0;
  if (!count) return;
  CPU_ZERO(&own);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed) && seat++ == index % count) CPU_SET(cpu, &own);
  syscall(SYS_sched_setaffinity, 0, sizeof own, &own);
}

static void *work(void *seat_pointer) {
  vitc_seat *seat = seat_pointer;
  vitc_model *model = seat->model;
  if (model->flags & VITC_PIN_THREADS) pin_to(seat->index);
  for (unsigned turn = 0;;) {
    turn = await_turn(model, turn);
    if (atomic_load(&model->stopping)) return NULL;
    take_share(model, seat->index, turn);
  }
}

/* Start the workers of a handle that has none; how many of them could be started. */
static int32_t start_workers(vitc_model *model) {
  atomic_store(&model->turn, 0);
  atomic_store(&model->asleep, 0);
  atomic_store(&model->caller_asleep, 0);
  for (int32_t i = 0; i < model->threads; i++) {
    atomic_store(&model->seat[i].taken, 0);
    model->seat[i].model = model;
    model->seat[i].index = i;
  }
  model->started = 0;
  while (model->started + 1 < model->threads) {
    int32_t i = model->started + 1;
    if (pthread_create(&model->worker[i], NULL, work, &model->seat[i])) break;
    model->started = i;
  }
  return model->started;
}

/* --- handles -----------------------------------------------------------------------------------------------------
 * A handle is looked up before it is touched, so that one that was destroyed is an error, whoever still has it. */

static vitc_lock handles_lock;
static vitc_model *handles;

static void lock_handles(void) {
  unsigned process = vitc_process();
  while (!vitc_try_lock(&handles_lock, process)) sched_yield();
}

static void unlock_handles(void) { vitc_unlock(&handles_lock); }

/* Where the list holds `model`; the place of its end if it does not. */
static vitc_model **find_handle(const vitc_model *model) {
  vitc_model **place = &handles;
  while (*place && *place != model) place = &(*place)->next;
  return place;
}

/* A copy that fork made has no workers, and whoever ran it is not here. */
static void adopt(vitc_model *model) {
  model->process = vitc_process();
  model->busy = 0;
  model->started = 0;
}

static vitc_status begin_run(vitc_model *model) {
  lock_handles();
  vitc_status status = *find_handle(model) ? VITC_OK : VITC_ERROR_ARGUMENT;
  int inherited = !status && model->process != vitc_process();
  if (inherited) adopt(model);
  if (!status && model->busy) status = VITC_ERROR_BUSY;
  if (!status) model->busy = 1;
  unlock_handles();
  if (inherited && tiles_permitted()) start_workers(model); /* the caller takes the shares of those that do not start */
  return status;
}

/* --- interface --------------------------------------------------------------------------------------------------- */

void vitc_get_info(vitc_info *info) {
  if (info) *info = vitc_model_info;
}

vitc_status vitc_get_entry(int32_t entry, vitc_entry *result) {
  if (!result) return VITC_ERROR_ARGUMENT;
  if (entry < 0 || entry >= vitc_model_info.entries) return VITC_ERROR_PORT;
  *result = vitc_programs[entry].facts;
  return VITC_OK;
}

vitc_status vitc_get_port(int32_t entry, int32_t port, vitc_port *result) {
  vitc_entry facts;
  if (!result) return VITC_ERROR_ARGUMENT;
  if (vitc_get_entry(entry, &facts) || port < 0 || port >= facts.ports) return VITC_ERROR_PORT;
  *result = vitc_programs[entry].ports[port];
  return VITC_OK;
}

const char *vitc_status_text(vitc_status status) {
  switch (status) {
    case VITC_OK: return "No error.";
    case VITC_ERROR_ARGUMENT: return "A pointer is null or no live handle, an option is unknown, or the thread count is not 1 to 64.";
    case VITC_ERROR_MEMORY: return "There is not enough memory for the workspace.";
    case VITC_ERROR_CPU: return refusal_text;
    case VITC_ERROR_THREAD: return "A thread could not be started.";
    case VITC_ERROR_BUSY: return "This handle is running in another thread.";
    case VITC_ERROR_PORT: return "An entry or a port does not exist, is missing, is named twice, or is of another size.";
    case VITC_ERROR_INDEX: return "An index is negative, or not below the limit of its port.";
  }
  return "Unknown status.";
}

static void free_model(vitc_model *model) {
  if (model->started) {
    atomic_store(&model->stopping, 1);
    begin_turn(model, atomic_load(&model->turn) + 1);
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
    if (model->process != vitc_process()) adopt(model);
    running = model->doomed = model->busy;
  }
  unlock_handles();
  if (known && !running) free_model(model);
}

int32_t vitc_threads(vitc_model *model) {
  lock_handles();
  int32_t threads = *find_handle(model) ? model->threads : 0;
  unlock_handles();
  return threads;
}

vitc_status vitc_create(int32_t threads, vitc_model **result) {
  const vitc_options options = {sizeof options, threads, 0};
  return vitc_create_with(&options, result);
}

vitc_status vitc_create_with(const vitc_options *options, vitc_model **result) {
  if (!result) return VITC_ERROR_ARGUMENT;
  *result = NULL;
  if (!options || options->size != sizeof *options || options->threads < 1 || options->threads > VITC_MAX_THREADS ||
      options->flags & ~(uint32_t)(VITC_PIN_THREADS | VITC_OVERSUBSCRIBE))
    return VITC_ERROR_ARGUMENT;
  if (!cpu_fits() || !tiles_permitted()) return VITC_ERROR_CPU;
  void *memory = NULL;
  if (posix_memalign(&memory, CACHE_LINE, sizeof(vitc_model))) return VITC_ERROR_MEMORY;
  memset(memory, 0, sizeof(vitc_model));
  vitc_model *model = memory;
  cpu_set_t allowed;
  int32_t processors = allowed_processors(&allowed);
  model->flags = options->flags;
  model->threads = options->threads;
  if (processors && processors < model->threads && !(model->flags & VITC_OVERSUBSCRIBE)) model->threads = processors;
  model->process = vitc_process();
  void *workspace = NULL;
  if (posix_memalign(&workspace, CACHE_LINE, vitc_model_info.workspace_bytes)) {
    free(model);
    return VITC_ERROR_MEMORY;
  }
  /* Padding is read by kernels and must hold finite numbers; first-touch also maps the pages now. */
  memset(workspace, 0, vitc_model_info.workspace_bytes);
  model->workspace = workspace;
  if (start_workers(model) + 1 < model->threads) {
    free_model(model);
    return VITC_ERROR_THREAD;
  }
  lock_handles();
  model->next = handles;
  handles = model;
  unlock_handles();
  *result = model;
  return VITC_OK;
}

vitc_status vitc_run_ports(vitc_model *model, const vitc_call *call) {
  if (!model || !call || call->size != sizeof *call || !call->arrays) return VITC_ERROR_ARGUMENT;
  vitc_bound bound;
  vitc_status status = bind_ports(call, &bound);
  if (!status) status = begin_run(model);
  if (status) return status;
  compute(model, &bound, call);
  lock_handles();
  model->busy = 0;
  int doomed = model->doomed;
  unlock_handles();
  if (doomed) free_model(model);
  return VITC_OK;
}

/* Run the first entry, whose image is of a type. */
static vitc_status run_images(vitc_model *model, int32_t dtype, size_t itemsize, const void *input, float *output,
                              vitc_observer observer, void *user) {
  const vitc_info *info = &vitc_model_info;
  if (!model || !input || !output) return VITC_ERROR_ARGUMENT;
  const vitc_port *ports = vitc_programs[0].ports;
  if (!info->classes || ports[0].dtype != dtype) return VITC_ERROR_PORT;
  size_t pixels = (size_t)info->channels * (size_t)info->height * (size_t)info->width, images = (size_t)info->batch;
  const vitc_array arrays[] = {
      {ports[0].name, (void *)(uintptr_t)input, images * pixels * itemsize},
      {ports[1].name, output, images * (size_t)info->classes * sizeof *output},
  };
  const vitc_call call = {sizeof call, NULL, arrays, 2, 0, observer, user};
  return vitc_run_ports(model, &call);
}

vitc_status vitc_run_observed(vitc_model *model, const float *input, float *output,
                              vitc_observer observer, void *user) {
  return run_images(model, VITC_FLOAT32, sizeof *input, input, output, observer, user);
}

vitc_status vitc_run(vitc_model *model, const float *input, float *output) {
  return vitc_run_observed(model, input, output, NULL, NULL);
}

vitc_status vitc_run_u8(vitc_model *model, const uint8_t *input, float *output) {
  return run_images(model, VITC_UINT8, sizeof *input, input, output, NULL, NULL);
}
