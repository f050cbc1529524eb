/* vitc-run: runs the compiled model that lies beside it.
 *
 * vitc-run INPUT.npy OUTPUT.npy [--threads T] [--repeat N] [--warmup W] [--trace FILE] [--profile] [--library PATH]
 *          [--sys PATH]
 * vitc-run --self-test [--threads T] [--library PATH]
 *
 * INPUT holds fp32 [images, channels, height, width], already normalised; any number of images, the last batch is filled
 * up with its last image. Prints one JSON object. --trace writes the buffer of every kernel of every image, one after the
 * other. --self-test runs self_test.npy, which lies beside the library, and compares with self_test.expected.npy. --sys
 * names another folder than /sys to read temperature and throttling from. Exit code 1 and one sentence on stderr on any
 * error. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#include "vitc_loader.h"
#include "vitc_model.h"

#define SELF_TEST_TOLERANCE 1e-4f

static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("vitc-run: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static const vitc_symbol imports[] = {
    {"calloc", (void *)calloc},
    {"free", (void *)free},
    {"getauxval", (void *)getauxval},
    {"malloc", (void *)malloc},
    {"memcmp", (void *)memcmp},
    {"memcpy", (void *)memcpy},
    {"memmove", (void *)memmove},
    {"memset", (void *)memset},
    {"posix_memalign", (void *)posix_memalign},
    {"pthread_create", (void *)pthread_create},
    {"pthread_join", (void *)pthread_join},
    {"sched_yield", (void *)sched_yield},
    {"strcmp", (void *)strcmp},
    {"strlen", (void *)strlen},
    {"syscall", (void *)syscall},
    {NULL, NULL},
};

typedef struct {
  vitc_status (*create)(int32_t, vitc_model **);
  vitc_status (*run)(vitc_model *, const float *, float *);
  vitc_status (*run_observed)(vitc_model *, const float *, float *, vitc_observer, void *);
  void (*get_info)(vitc_info *);
  void (*destroy)(vitc_model *);
  const char *(*status_text)(vitc_status);
} api;

static void *need(const vitc_library *library, const char *name) {
  void *symbol = vitc_library_symbol(library, name);
  if (!symbol) die("the library has no function %s; it was not made by this version of vitc", name);
  return symbol;
}

static api load(const char *path) {
  char error[512];
  vitc_library *library = vitc_library_open(path, imports, error, sizeof error);
  if (!library) die("%s", error);
  api result;
  *(void **)&result.create = need(library, "vitc_create");
  *(void **)&result.run = need(library, "vitc_run");
  *(void **)&result.run_observed = need(library, "vitc_run_observed");
  *(void **)&result.get_info = need(library, "vitc_get_info");
  *(void **)&result.destroy = need(library, "vitc_destroy");
  *(void **)&result.status_text = need(library, "vitc_status_text");
  return result;
}

/* Read a .npy file of little-endian fp32 in C order. */
static float *read_array(const char *path, int64_t *shape, int dimensions) {
  static const char *const names[] = {"no", "one", "two", "three", "four"};
  FILE *file = fopen(path, "rb");
  if (!file) die("%s: %s", path, strerror(errno));
  unsigned char head[12];
  if (fread(head, 1, 10, file) != 10 || memcmp(head, "\x93NUMPY", 6) != 0)
    die("%s: not a .npy file", path);
  size_t length = (size_t)head[8] | (size_t)head[9] << 8;
  if (head[6] > 1) {
    if (fread(head + 10, 1, 2, file) != 2) die("%s: the file is truncated", path);
    length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
  }
  if (length > 65536) die("%s: its header is too long", path);
  char *text = malloc(length + 1);
  if (!text || fread(text, 1, length, file) != length) die("%s: the file is truncated", path);
  text[length] = 0;
  if (!strstr(text, "'<f4'") || !strstr(text, "'fortran_order': False"))
    die("%s: wanted fp32 in C order", path);
  const char *at = strstr(text, "'shape': (");
  if (!at) die("%s: its header has no shape", path);
  at += strlen("'shape': (");
  uint64_t count = 1;
  for (int i = 0; i < dimensions; i++) {
    char *end;
    shape[i] = strtoll(at, &end, 10);
    if (end == at || shape[i] < 1 || shape[i] > 1 << 20) die("%s: wanted %s dimensions", path, names[dimensions]);
    count *= (uint64_t)shape[i];
    if (count > (uint64_t)1 << 28) die("%s: more than 1 GiB of images", path);
    at = end + strspn(end, ", ");
  }
  if (*at != ')') die("%s: wanted %s dimensions", path, names[dimensions]);
  free(text);
  float *data = malloc((size_t)count * sizeof(float));
  if (!data) die("%s: not enough memory", path);
  if (fread(data, sizeof(float), (size_t)count, file) != count)
    die("%s: the file is truncated", path);
  fclose(file);
  return data;
}

static void write_logits(const char *path, const float *data, int64_t rows, int64_t columns) {
  char temporary[4096];
  if (snprintf(temporary, sizeof temporary, "%s.part", path) >= (int)sizeof temporary)
    die("%s: the path is too long", path);
  FILE *file = fopen(temporary, "wb");
  if (!file) die("%s: %s", temporary, strerror(errno));
  char header[128] = {0};
  memset(header, ' ', sizeof header);
  memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
  int used = snprintf(header + 10, sizeof header - 10,
                      "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld), }",
                      (long long)rows, (long long)columns);
  header[10 + used] = ' ';
  header[127] = '\n';
  size_t count = (size_t)(rows * columns);
  int failed = fwrite(header, 1, 128, file) != 128 ||
               fwrite(data, sizeof(float), count, file) != count;
  failed |= fclose(file) != 0;
  if (failed || rename(temporary, path)) die("%s: %s", path, strerror(errno));
}

typedef struct {
  FILE *file;
  int32_t images; /* real ones in this batch; the rest is filling */
  int failed;
} trace;

static void write_buffer(void *user, int32_t image, int32_t step, const char *name,
                         const void *data, size_t bytes) {
  (void)step;
  (void)name;
  trace *out = user;
  if (image < out->images) out->failed |= fwrite(data, 1, bytes, out->file) != bytes;
}

typedef struct {
  int64_t *sum; /* ns of each step */
  int64_t last;
} profile;

static void add_time(void *user, int32_t image, int32_t step, const char *name, const void *data,
                     size_t bytes) {
  (void)image;
  (void)name;
  (void)data;
  (void)bytes;
  profile *times = user;
  int64_t time = now();
  times->sum[step] += time - times->last;
  times->last = now();
}

/* --- temperature and throttling, where the system offers them ---------------------------------------------------- */

static const char *sys_path = "/sys";

/* The first line of a file below sys_path, with %d of the name replaced by `index`; 0 if there is none. */
static int sys_line(char *line, size_t size, const char *name, int index) {
  char path[512];
  int used = snprintf(path, sizeof path, "%s/", sys_path);
  if (used < 0 || (size_t)used >= sizeof path) return 0;
  for (const char *at = name; *at; at++) {
    if (*at == '#') used += snprintf(path + used, sizeof path - (size_t)used, "%d", index);
    else path[used++] = *at;
    if ((size_t)used >= sizeof path - 1) return 0;
  }
  path[used] = 0;
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  char *read = fgets(line, (int)size, file);
  fclose(file);
  if (!read) return 0;
  line[strcspn(line, "\n")] = 0;
  return 1;
}

static int sys_number(long *value, const char *name, int index, int base) {
  char line[64], *end;
  if (!sys_line(line, sizeof line, name, index)) return 0;
  *value = strtol(line, &end, base);
  return end != line;
}

typedef struct {
  long temperature, frequency, cooling, events, firmware; /* -1 where the system does not say */
  char governor[64];
} condition;

static condition read_condition(void) {
  condition now = {-1, -1, -1, -1, -1, ""};
  long value;
  char type[64];
  for (int i = 0; i < 64 && sys_number(&value, "class/thermal/thermal_zone#/temp", i, 10); i++)
    if (value > now.temperature) now.temperature = value;
  for (int i = 0; i < 64 && sys_line(type, sizeof type, "class/thermal/cooling_device#/type", i); i++)
    if ((strstr(type, "cpu") || strstr(type, "Processor")) &&
        sys_number(&value, "class/thermal/cooling_device#/cur_state", i, 10))
      now.cooling = (now.cooling < 0 ? 0 : now.cooling) + value;
  for (int i = 0; i < 256; i++) {
    if (!sys_number(&value, "devices/system/cpu/cpu#/thermal_throttle/core_throttle_count", i, 10)) break;
    now.events = (now.events < 0 ? 0 : now.events) + value;
  }
  sys_number(&now.frequency, "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 0, 10);
  sys_number(&now.firmware, "devices/platform/soc/soc:firmware/get_throttled", 0, 16);
  if (!sys_line(now.governor, sizeof now.governor, "devices/system/cpu/cpu0/cpufreq/scaling_governor", 0))
    now.governor[0] = 0;
  for (char *at = now.governor; *at; at++) /* it goes between quotes */
    if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ') *at = '?';
  return now;
}

static void print_condition(const char *when, const condition *state) {
  const char *between = "";
  printf("\"%s\": {", when);
  if (state->temperature >= 0) {
    printf("\"temperature_c\": %ld.%ld", state->temperature / 1000, state->temperature % 1000 / 100);
    between = ", ";
  }
  const struct {
    const char *name;
    long value;
  } numbers[] = {{"frequency_khz", state->frequency}, {"cooling", state->cooling},
                 {"throttle_events", state->events}, {"firmware_throttled", state->firmware}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    if (numbers[i].value < 0) continue;
    printf("%s\"%s\": %ld", between, numbers[i].name, numbers[i].value);
    between = ", ";
  }
  if (state->governor[0]) printf("%s\"governor\": \"%s\"", between, state->governor);
  printf("}");
}

static int32_t number(const char *option, const char *text, int32_t low, int32_t high) {
  char *end;
  long value = text ? strtol(text, &end, 10) : low - 1L;
  if (!text || !*text || *end || value < low || value > high)
    die("%s wants a number from %d to %d", option, (int)low, (int)high);
  return (int32_t)value;
}

static void pin_to_first_cpu(void) {
  cpu_set_t allowed, own;
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    CPU_SET(cpu, &own);
    sched_setaffinity(0, sizeof own, &own);
    break;
  }
}

static void print_times(const char *key, const int64_t *values, int64_t count) {
  printf(", \"%s\": [", key);
  for (int64_t i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)values[i]);
  printf("]");
}

static void beside_library(char *path, size_t size, const char *library, const char *name) {
  const char *slash = strrchr(library, '/');
  int folder = slash ? (int)(slash - library) + 1 : 0;
  if (snprintf(path, size, "%.*s%s", folder, library, name) >= (int)size) die("%s: the path is too long", library);
}

/* Compare with the logits that ONNX Runtime gave when the model was compiled. */
static void compare(const char *path, const float *logits, int64_t images, int64_t classes) {
  int64_t shape[2];
  float *wanted = read_array(path, shape, 2), worst = 0;
  if (shape[0] != images || shape[1] != classes) die("%s: it does not belong to this model", path);
  for (int64_t i = 0; i < images; i++) {
    const float *own = logits + i * classes, *other = wanted + i * classes;
    int64_t best[2] = {0, 0};
    for (int64_t c = 0; c < classes; c++) {
      float apart = own[c] > other[c] ? own[c] - other[c] : other[c] - own[c];
      if (!(apart <= worst)) worst = apart; /* a NaN is the worst */
      if (own[c] > own[best[0]]) best[0] = c;
      if (other[c] > other[best[1]]) best[1] = c;
    }
    if (!(worst <= SELF_TEST_TOLERANCE) || best[0] != best[1])
      die("the self-test failed: logits differ by %g, and the class is %lld instead of %lld; do not use this library here",
          (double)worst, (long long)best[0], (long long)best[1]);
  }
  printf("{\"self_test\": \"passed\", \"max_logit_difference\": %g}\n", (double)worst);
  free(wanted);
}

int main(int argc, char **argv) {
  const char *paths[2] = {NULL, NULL}, *trace_path = NULL, *library_path = NULL;
  int32_t threads = 1, repeat = 1, warmup = 0, positional = 0, profiled = 0, tested = 0;
  for (int i = 1; i < argc; i++) {
    const char *option = argv[i];
    if (option[0] != '-' && positional < 2) paths[positional++] = option;
    else if (strcmp(option, "--profile") == 0) profiled = 1;
    else if (strcmp(option, "--self-test") == 0) tested = 1;
    else if (i + 1 >= argc) die("%s is not an option or wants a value", option);
    else if (strcmp(option, "--threads") == 0) threads = number(option, argv[++i], 1, VITC_MAX_THREADS);
    else if (strcmp(option, "--repeat") == 0) repeat = number(option, argv[++i], 1, 1000000);
    else if (strcmp(option, "--warmup") == 0) warmup = number(option, argv[++i], 0, 1000000);
    else if (strcmp(option, "--trace") == 0) trace_path = argv[++i];
    else if (strcmp(option, "--library") == 0) library_path = argv[++i];
    else if (strcmp(option, "--sys") == 0) sys_path = argv[++i];
    else die("%s is not an option", option);
  }
  if (positional != (tested ? 0 : 2))
    die("usage: vitc-run INPUT.npy OUTPUT.npy [--threads T] [--repeat N] [--warmup W] "
        "[--trace FILE] [--profile] [--library PATH] [--sys PATH], or vitc-run --self-test");

  char beside[4096];
  if (!library_path) {
    ssize_t length = readlink("/proc/self/exe", beside, sizeof beside - 32);
    if (length < 0) die("cannot find its own folder; name the library with --library");
    beside[length] = 0;
    char *slash = strrchr(beside, '/');
    strcpy(slash ? slash + 1 : beside, "libvitc_model.so");
    library_path = beside;
  }
  char given[4096], expected[4096];
  if (tested) {
    beside_library(given, sizeof given, library_path, "self_test.npy");
    beside_library(expected, sizeof expected, library_path, "self_test.expected.npy");
    paths[0] = given;
  }
  condition before = read_condition();
  int64_t started = now();
  api model_api = load(library_path);
  vitc_info info;
  model_api.get_info(&info);
  if (info.abi_version != VITC_ABI_VERSION)
    die("%s has interface version %u, this runner wants %u", library_path,
        (unsigned)info.abi_version, (unsigned)VITC_ABI_VERSION);
  int64_t shape[4];
  float *images = read_array(paths[0], shape, 4);
  if (shape[1] != info.channels || shape[2] != info.height || shape[3] != info.width)
    die("%s holds images of %lld x %lld x %lld, the model wants %d x %d x %d", paths[0],
        (long long)shape[1], (long long)shape[2], (long long)shape[3], (int)info.channels,
        (int)info.height, (int)info.width);
  int64_t image = shape[1] * shape[2] * shape[3];
  int64_t batches = (shape[0] + info.batch - 1) / info.batch, padded = batches * info.batch;
  float *input = realloc(images, (size_t)(padded * image) * sizeof(float));
  float *logits = malloc((size_t)(padded * info.classes) * sizeof(float));
  int64_t *latencies = malloc((size_t)(batches * repeat) * sizeof(int64_t));
  int64_t *step_times = calloc((size_t)info.steps, sizeof(int64_t));
  if (!input || !logits || !latencies || !step_times) die("not enough memory");
  for (int64_t i = shape[0]; i < padded; i++)
    memcpy(input + i * image, input + (shape[0] - 1) * image, (size_t)image * sizeof(float));

  /* Workers choose their own processor among those allowed, so they are made before this thread is pinned. */
  vitc_model *model = NULL;
  vitc_status status = model_api.create(threads, &model);
  if (status) die("%s", model_api.status_text(status));
  pin_to_first_cpu();

  int64_t ready = now(), first = 0;
  trace out = {NULL, 0, 0};
  if (trace_path && !(out.file = fopen(trace_path, "wb"))) die("%s: %s", trace_path, strerror(errno));
  for (int64_t pass = -(int64_t)warmup; pass < repeat; pass++) {
    for (int64_t batch = 0; batch < batches; batch++) {
      const float *from = input + batch * info.batch * image;
      float *to = logits + batch * info.batch * info.classes;
      int64_t before = now();
      if (profiled && pass >= 0) {
        profile times = {step_times, before};
        status = model_api.run_observed(model, from, to, add_time, &times);
      } else {
        status = model_api.run(model, from, to);
      }
      if (status) die("%s", model_api.status_text(status));
      int64_t spent = now() - before;
      if (!first) first = now();
      if (pass >= 0) latencies[pass * batches + batch] = spent;
    }
  }
  condition after = read_condition();
  for (int64_t batch = 0; out.file && batch < batches; batch++) {
    int64_t left = shape[0] - batch * info.batch;
    out.images = (int32_t)(left < info.batch ? left : info.batch);
    status = model_api.run_observed(model, input + batch * info.batch * image,
                                    logits + batch * info.batch * info.classes, write_buffer, &out);
    if (status) die("%s", model_api.status_text(status));
  }
  if (out.file && (fclose(out.file) || out.failed)) die("%s: could not be written", trace_path);
  if (tested) {
    compare(expected, logits, shape[0], info.classes);
    model_api.destroy(model);
    return 0;
  }
  write_logits(paths[1], logits, shape[0], info.classes);

  printf("{\"target\": \"%s\", \"threads\": %d, \"images\": %lld, \"batch\": %d, \"repeat\": %d, "
         "\"workspace_bytes\": %lld, \"load_ns\": %lld, \"start_ns\": %lld",
         info.target, (int)threads, (long long)shape[0], (int)info.batch, (int)repeat,
         (long long)info.workspace_bytes, (long long)(ready - started), (long long)(first - started));
  print_times("latency_ns", latencies, batches * repeat);
  if (profiled) print_times("step_ns", step_times, info.steps);
  printf(", \"conditions\": {");
  print_condition("before", &before);
  printf(", ");
  print_condition("after", &after);
  printf("}}\n");
  model_api.destroy(model);
  return 0;
}
