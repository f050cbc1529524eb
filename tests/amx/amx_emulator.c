/* AMX in software, for tests on machines without it: a SIGILL handler decodes the AMX instruction that stopped the
 * thread, executes it on tile registers of that thread, and steps over it.
 *
 * Follows the Intel SDM, volume 2 (LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED,
 * TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD), palette 1. What an AMX processor would refuse (#UD, #GP) ends the process with
 * a sentence. Load it into the process, or link it into a program. */
#define _GNU_SOURCE
#undef syscall /* see amx_syscall */
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, PREFIX_NONE = 0, PREFIX_66 = 1, PREFIX_F3 = 2, PREFIX_F2 = 3 };

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
} configuration;

_Static_assert(sizeof(configuration) == 64, "LDTILECFG reads 64 bytes");

typedef uint8_t tile[ROWS][ROW_BYTES];

static _Thread_local configuration current;
static _Thread_local tile tiles[TILES];

/* Instructions executed, by kind, in all threads; for tests that want to know that there were any. */
unsigned long amx_products, amx_loads;

static _Noreturn void refuse(const char *why) {
  static const char prefix[] = "amx_emulator: ";
  (void)!write(STDERR_FILENO, prefix, sizeof prefix - 1);
  (void)!write(STDERR_FILENO, why, strlen(why));
  (void)!write(STDERR_FILENO, "\n", 1);
  _exit(134);
}

/* --- decoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
  unsigned opcode, prefix, reg, rm, vvvv, mod;
  uint64_t address, stride; /* of a memory operand */
  unsigned sib;             /* whether it has a SIB byte */
  unsigned length;
} instruction;

static uint64_t general(const ucontext_t *context, unsigned number) {
  static const int where[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uint64_t)context->uc_mcontext.gregs[where[number]];
}

static int64_t displacement(const uint8_t *at, unsigned bytes) {
  if (bytes == 1) return (int8_t)at[0];
  int32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static instruction decode(const uint8_t *code, const ucontext_t *context) {
  instruction found = {0};
  if (code[0] != 0xC4 || (code[1] & 0x1F) != 2) refuse("an illegal instruction that is not AMX");
  unsigned high_reg = !(code[1] & 0x80), high_index = !(code[1] & 0x40), high_base = !(code[1] & 0x20);
  if (code[2] & 0x84) refuse("VEX.W or VEX.L is set, which no AMX instruction has");
  found.vvvv = (~code[2] >> 3) & 15;
  found.prefix = code[2] & 3;
  found.opcode = code[3];
  found.mod = code[4] >> 6;
  found.reg = ((code[4] >> 3) & 7) | high_reg << 3;
  found.rm = (code[4] & 7) | high_base << 3;
  const uint8_t *next = code + 5;
  if (found.mod != 3) {
    unsigned bytes = found.mod == 1 ? 1 : found.mod == 2 ? 4 : 0;
    uint64_t base;
    if ((code[4] & 7) == 4) {
      uint8_t sib = *next++;
      unsigned index = ((sib >> 3) & 7) | high_index << 3, number = (sib & 7) | high_base << 3;
      found.sib = 1;
      found.stride = index == 4 ? 0 : general(context, index) << (sib >> 6);
      if ((sib & 7) == 5 && found.mod == 0) base = 0, bytes = 4;
      else base = general(context, number);
    } else if ((code[4] & 7) == 5 && found.mod == 0) {
      bytes = 4;
      base = (uint64_t)(uintptr_t)next + 4; /* the next instruction */
    } else {
      base = general(context, found.rm);
    }
    found.address = base + (uint64_t)(bytes ? displacement(next, bytes) : 0);
    next += bytes;
  }
  found.length = (unsigned)(next - code);
  return found;
}

/* --- instructions ------------------------------------------------------------------------------------------------ */

static void configure(const configuration *wanted) {
  if (wanted->palette > 1) refuse("LDTILECFG: palette beyond 1");
  for (unsigned i = 0; i < sizeof wanted->reserved; i++)
    if (wanted->reserved[i]) refuse("LDTILECFG: a reserved byte is not zero");
  for (unsigned i = 0; i < 16 && wanted->palette; i++) {
    if (i >= TILES && (wanted->rows[i] || wanted->column_bytes[i]))
      refuse("LDTILECFG: a shape for a tile beyond tmm7");
    if (wanted->rows[i] > ROWS) refuse("LDTILECFG: more than 16 rows");
    if (wanted->column_bytes[i] > ROW_BYTES) refuse("LDTILECFG: more than 64 bytes a row");
    if (!wanted->rows[i] != !wanted->column_bytes[i]) refuse("LDTILECFG: rows without columns, or columns without rows");
  }
  memset(tiles, 0, sizeof tiles);
  memset(&current, 0, sizeof current);
  if (wanted->palette) current = *wanted;
}

static unsigned usable(unsigned number) {
  if (number >= TILES) refuse("a tile beyond tmm7");
  if (!current.palette) refuse("a tile is used before LDTILECFG");
  if (!current.rows[number]) refuse("a tile without a configured shape is used");
  return number;
}

static void product(const instruction *op) {
  unsigned sum = usable(op->reg), left = usable(op->rm), right = usable(op->vvvv);
  if (sum == left || sum == right || left == right) refuse("TDP: two operands are the same tile");
  unsigned rows = current.rows[sum], columns = current.column_bytes[sum], depth = current.rows[right];
  if (columns % 4 || current.column_bytes[left] % 4) refuse("TDP: columns that are no multiple of 4 bytes");
  if (rows != current.rows[left] || columns != current.column_bytes[right] ||
      current.column_bytes[left] / 4 != depth)
    refuse("TDP: shapes of tiles that do not fit");
  int left_signed = op->prefix == PREFIX_F2 || op->prefix == PREFIX_F3;
  int right_signed = op->prefix == PREFIX_F2 || op->prefix == PREFIX_66;
  for (unsigned m = 0; m < rows; m++) {
    uint32_t row[ROW_BYTES / 4];
    memcpy(row, tiles[sum][m], sizeof row);
    for (unsigned k = 0; k < depth; k++)
      for (unsigned n = 0; n < columns / 4; n++)
        for (unsigned i = 0; i < 4; i++) {
          uint8_t a = tiles[left][m][4 * k + i], b = tiles[right][k][4 * n + i];
          int32_t wide_a = left_signed ? (int8_t)a : a, wide_b = right_signed ? (int8_t)b : b;
          row[n] += (uint32_t)(wide_a * wide_b);
        }
    memcpy(tiles[sum][m], row, columns);
    memset(tiles[sum][m] + columns, 0, ROW_BYTES - columns);
  }
  for (unsigned m = rows; m < ROWS; m++) memset(tiles[sum][m], 0, ROW_BYTES);
  __atomic_fetch_add(&amx_products, 1, __ATOMIC_RELAXED);
}

static void move(const instruction *op) {
  if (op->mod == 3 || !op->sib) refuse("TILELOADD or TILESTORED without a base and index in memory");
  if (op->vvvv) refuse("VEX.vvvv names a register that the instruction does not have");
  unsigned number = usable(op->reg), bytes = current.column_bytes[number];
  uint8_t *memory = (uint8_t *)(uintptr_t)op->address;
  for (unsigned row = 0; row < current.rows[number]; row++, memory += op->stride) {
    if (op->prefix == PREFIX_F3) {
      memcpy(memory, tiles[number][row], bytes);
    } else {
      memcpy(tiles[number][row], memory, bytes);
      memset(tiles[number][row] + bytes, 0, ROW_BYTES - bytes);
    }
  }
  if (op->prefix == PREFIX_F3) return;
  for (unsigned row = current.rows[number]; row < ROWS; row++) memset(tiles[number][row], 0, ROW_BYTES);
  __atomic_fetch_add(&amx_loads, 1, __ATOMIC_RELAXED);
}

static void manage(const instruction *op) {
  void *memory = (void *)(uintptr_t)op->address;
  if (op->vvvv) refuse("VEX.vvvv names a register that the instruction does not have");
  if (op->mod != 3 && op->reg == 0 && op->prefix == PREFIX_NONE) {
    configuration wanted;
    memcpy(&wanted, memory, sizeof wanted);
    configure(&wanted);
  } else if (op->mod != 3 && op->reg == 0 && op->prefix == PREFIX_66) {
    memcpy(memory, &current, sizeof current);
  } else if (op->mod == 3 && op->reg == 0 && op->rm == 0 && op->prefix == PREFIX_NONE) {
    configure(&(configuration){0});
  } else if (op->mod == 3 && op->rm == 0 && op->prefix == PREFIX_F2) {
    memset(tiles[usable(op->reg)], 0, sizeof(tile));
  } else {
    refuse("an unknown form of opcode 49");
  }
}

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *pointer) {
  (void)signal_number, (void)info;
  ucontext_t *context = pointer;
  const uint8_t *code = (const uint8_t *)(uintptr_t)context->uc_mcontext.gregs[REG_RIP];
  instruction op = decode(code, context);
  if (op.opcode == 0x49) manage(&op);
  else if (op.opcode == 0x4B && op.prefix != PREFIX_NONE) move(&op);
  else if (op.opcode == 0x5E && op.mod == 3) product(&op);
  else refuse("an illegal instruction that is not AMX");
  context->uc_mcontext.gregs[REG_RIP] += op.length;
}

/* --- the system -------------------------------------------------------------------------------------------------- */

/* Stands in for syscall(2) where a program is compiled with -Dsyscall=amx_syscall: Linux without AMX refuses the
 * permission to use tiles, which an emulated process needs none of. */
long amx_syscall(long number, ...) {
  long argument[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) argument[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_arch_prctl && argument[0] == 0x1023) return 0;
  return syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}

__attribute__((constructor)) static void install(void) {
  struct sigaction action = {.sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGILL, &action, NULL);
}
