/* vitc-run: runs the compiled model that lies beside it. Prints one JSON object; any error is exit code 1 and one sentence
 * on stderr. `usage` below says how. */
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vitc_loader.h"
#include "vitc_model.h"
#include "vitc_sha256.h"

#define SELF_TEST_TOLERANCE 1e-4f

enum { PATH_BYTES = 4096, MOST_TEXT = 16 << 20 };

static const char usage[] =
    "vitc-run: runs the compiled model that lies beside it\n"
    "\n"
    "  vitc-run INPUT.npy OUTPUT.npy [OPTIONS]   fp32 [images, channels, height, width], normalised, to logits\n"
    "  vitc-run --self-test [OPTIONS]            verify the library, and compare every layer of a stored image\n"
    "\n"
    "  --threads T      threads, 1 to 64 (1); never more than the processors that it may use\n"
    "  --pin            bind each thread to a processor of its own\n"
    "  --oversubscribe  make as many threads as asked for, however few processors there are\n"
    "  --repeat N       timed runs of all images (1)\n"
    "  --warmup W       runs of all images before them, not timed (0)\n"
    "  --profile        time each kernel as well\n"
    "  --trace FILE     write the buffer of every kernel of every image, one after the other\n"
    "  --digests FILE   write the SHA-256 of every kernel's buffer, of the first image in a first run\n"
    "  --library PATH   another library than libvitc_model.so beside this program\n"
    "  --sys PATH       another folder than /sys to read temperature and throttling from\n"
    "\n"
    "The last batch is filled up with the last image. Timings are printed as one JSON object; an error is one sentence\n"
    "and exit code 1.\n";

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
  vitc_status (*create_with)(const vitc_options *, vitc_model **);
  int32_t (*threads)(vitc_model *);
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

static api load(const char *path, const char *digest) {
  char error[PATH_BYTES + 256];
  vitc_library *library = vitc_library_open(path, digest, imports, error, sizeof error);
  if (!library) die("%s", error);
  api result;
  *(void **)&result.create_with = need(library, "vitc_create_with");
  *(void **)&result.threads = need(library, "vitc_threads");
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

/* Refuse what no picture gives, as `vitc run` does. */
static void need_finite(const char *path, const float *data, const int64_t shape[4]) {
  int64_t count = shape[0] * shape[1] * shape[2] * shape[3];
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, data + i, sizeof bits);
    if ((bits & 0x7f800000) != 0x7f800000) continue;
    int64_t row = i / shape[3], plane = row / shape[2];
    die("%s: holds %s at [%lld, %lld, %lld, %lld], wanted finite numbers", path,
        bits & 0x7fffff ? "nan" : bits >> 31 ? "-inf" : "inf", (long long)(plane / shape[1]),
        (long long)(plane % shape[1]), (long long)(row % shape[2]), (long long)(i % shape[3]));
  }
}

/* Write a file that is whole or not there; what is no plain file (a device, a pipe, a link) is written through. */
static void write_logits(const char *path, const float *data, int64_t rows, int64_t columns) {
  char aside[PATH_BYTES];
  struct stat status;
  int through = !lstat(path, &status) && !S_ISREG(status.st_mode);
  if (snprintf(aside, sizeof aside, through ? "%s" : "%s.%ld.part", path, (long)getpid()) >= (int)sizeof aside)
    die("%s: the path is too long", path);
  FILE *file = fopen(aside, "wb");
  if (!file) die("%s: %s", path, strerror(errno));
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
  if (!failed && !through) failed = rename(aside, path) != 0;
  if (!failed) return;
  int reason = errno;
  if (!through) unlink(aside);
  die("%s: %s", path, strerror(reason));
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

/* --- self-test --------------------------------------------------------------------------------------------------- */

/* A whole file as text; null if there is none. */
static char *read_text(const char *path, size_t most) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = malloc(most + 1);
  if (!text) die("not enough memory");
  size_t length = fread(text, 1, most + 1, file);
  fclose(file);
  if (length > most) die("%s: it is too large", path);
  text[length] = 0;
  return text;
}

/* The digest that the manifest has for a file. A quote within a text of JSON stands behind a backslash, so what looks like
 * the name of a field is one. */
static int find_digest(const char *manifest, const char *name, char digest[SHA256_TEXT]) {
  char field[300];
  if (snprintf(field, sizeof field, "\"%s\"", name) >= (int)sizeof field) return 0;
  for (const char *at = manifest; (at = strstr(at, field)); at++) {
    const char *value = at + strlen(field);
    value += strspn(value, " \t\r\n");
    if (*value++ != ':') continue;
    value += strspn(value, " \t\r\n");
    if (*value++ != '"' || strspn(value, "0123456789abcdef") != SHA256_TEXT - 1 || value[SHA256_TEXT - 1] != '"') continue;
    memcpy(digest, value, SHA256_TEXT - 1);
    digest[SHA256_TEXT - 1] = 0;
    return 1;
  }
  return 0;
}

/* What a first run on a fresh workspace leaves in each buffer: also what lies between and behind the values is the same in
 * every such run, so a buffer is compared whole. */
typedef struct {
  FILE *file;       /* to write to, or null */
  const char *path; /* of the list to compare with */
  const char *at;   /* its next line: a digest, two spaces, a name; null for no list */
  int32_t taps;
} digest_list;

static void take_digest(void *user, int32_t image, int32_t step, const char *name, const void *data, size_t bytes) {
  digest_list *list = user;
  if (image) return;
  char digest[SHA256_TEXT];
  sha256(data, bytes, digest);
  if (list->file) fprintf(list->file, "%s  %s\n", digest, name);
  if (!list->at) return;
  const char *line = list->at, *end = strchr(line, '\n');
  size_t length = strlen(name), before = SHA256_TEXT + 1;
  if (!end || (size_t)(end - line) != before + length || strspn(line, "0123456789abcdef") != SHA256_TEXT - 1 ||
      strncmp(line + SHA256_TEXT - 1, "  ", 2) || strncmp(line + before, name, length))
    die("%s: it does not belong to this model", list->path);
  if (strncmp(line, digest, SHA256_TEXT - 1))
    die("the self-test failed: %s (kernel %d) is not what it was when the model was compiled; do not use this library "
        "here", name, (int)step);
  list->at = end + 1;
  list->taps++;
}

/* Compare with the logits that ONNX Runtime gave when the model was compiled; the largest difference. */
static float compare_logits(const char *path, const float *logits, int64_t images, int64_t classes) {
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
  free(wanted);
  return worst;
}

int main(int argc, char **argv) {
  const char *paths[2] = {NULL, NULL}, *trace_path = NULL, *digests_path = NULL, *library_path = NULL;
  int32_t threads = 1, repeat = 1, warmup = 0, positional = 0, profiled = 0, tested = 0, pinned = 0;
  uint32_t flags = 0;
  for (int i = 1; i < argc; i++) {
    const char *option = argv[i];
    if (option[0] != '-' && positional < 2) paths[positional++] = option;
    else if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) return fputs(usage, stdout) < 0;
    else if (strcmp(option, "--pin") == 0) pinned = 1, flags |= VITC_PIN_THREADS;
    else if (strcmp(option, "--oversubscribe") == 0) flags |= VITC_OVERSUBSCRIBE;
    else if (strcmp(option, "--profile") == 0) profiled = 1;
    else if (strcmp(option, "--self-test") == 0) tested = 1;
    else if (i + 1 >= argc) die("%s is not an option or wants a value", option);
    else if (strcmp(option, "--threads") == 0) threads = number(option, argv[++i], 1, VITC_MAX_THREADS);
    else if (strcmp(option, "--repeat") == 0) repeat = number(option, argv[++i], 1, 1000000);
    else if (strcmp(option, "--warmup") == 0) warmup = number(option, argv[++i], 0, 1000000);
    else if (strcmp(option, "--trace") == 0) trace_path = argv[++i];
    else if (strcmp(option, "--digests") == 0) digests_path = argv[++i];
    else if (strcmp(option, "--library") == 0) library_path = argv[++i];
    else if (strcmp(option, "--sys") == 0) sys_path = argv[++i];
    else die("%s is not an option", option);
  }
  if (positional != (tested ? 0 : 2))
    die("wanted INPUT.npy OUTPUT.npy, or --self-test alone; see vitc-run --help");

  char beside[PATH_BYTES];
  if (!library_path) {
    ssize_t length = readlink("/proc/self/exe", beside, sizeof beside - 32);
    if (length < 0) die("cannot find its own folder; name the library with --library");
    beside[length] = 0;
    char *slash = strrchr(beside, '/');
    strcpy(slash ? slash + 1 : beside, "libvitc_model.so");
    library_path = beside;
  }
  char given[PATH_BYTES], expected[PATH_BYTES], list_path[PATH_BYTES], recorded[SHA256_TEXT];
  digest_list list = {NULL, list_path, NULL, 0};
  if (tested) {
    char manifest_path[PATH_BYTES], ignored[SHA256_TEXT];
    beside_library(given, sizeof given, library_path, "self_test.npy");
    beside_library(expected, sizeof expected, library_path, "self_test.expected.npy");
    beside_library(list_path, sizeof list_path, library_path, "self_test.taps");
    beside_library(manifest_path, sizeof manifest_path, library_path, "manifest.json");
    paths[0] = given;
    char *manifest = read_text(manifest_path, MOST_TEXT);
    if (!manifest) die("%s: %s", manifest_path, strerror(errno));
    const char *slash = strrchr(library_path, '/');
    if (!find_digest(manifest, slash ? slash + 1 : library_path, recorded))
      die("%s: it has no SHA-256 of %s", manifest_path, library_path);
    if (find_digest(manifest, "self_test.taps", ignored) && !(list.at = read_text(list_path, MOST_TEXT)))
      die("%s: %s", list_path, strerror(errno));
    free(manifest);
  }
  condition before = read_condition();
  int64_t started = now();
  api model_api = load(library_path, tested ? recorded : NULL);
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
  need_finite(paths[0], images, shape);
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
  const vitc_options options = {sizeof options, threads, flags};
  vitc_status status = model_api.create_with(&options, &model);
  if (status) die("%s", model_api.status_text(status));
  if (pinned) pin_to_first_cpu();
  int32_t used = model_api.threads(model);
  if (used < threads)
    fprintf(stderr, "vitc-run: note: %d threads asked for, %d used, as many as there are processors\n", (int)threads,
            (int)used);

  if (digests_path && !(list.file = fopen(digests_path, "wb"))) die("%s: %s", digests_path, strerror(errno));
  if (list.file || list.at) {
    status = model_api.run_observed(model, input, logits, take_digest, &list);
    if (status) die("%s", model_api.status_text(status));
    if (list.at && *list.at) die("%s: it does not belong to this model", list_path);
    if (list.file && (ferror(list.file) | fclose(list.file))) die("%s: could not be written", digests_path);
  }
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
    float worst = compare_logits(expected, logits, shape[0], info.classes);
    printf("{\"self_test\": \"passed\", \"taps\": %d, \"max_logit_difference\": %g}\n", (int)list.taps, (double)worst);
    model_api.destroy(model);
    return 0;
  }
  write_logits(paths[1], logits, shape[0], info.classes);

  printf("{\"target\": \"%s\", \"threads\": %d, \"threads_asked\": %d, \"pinned\": %s, \"images\": %lld, \"batch\": %d, \"repeat\": %d, "
         "\"workspace_bytes\": %lld, \"load_ns\": %lld, \"start_ns\": %lld",
         info.target, (int)used, (int)threads, pinned ? "true" : "false", (long long)shape[0], (int)info.batch, (int)repeat,
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
