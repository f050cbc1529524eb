/* A loader for one kind of shared library: ELF, self-contained but for a few C functions, no thread-local data.
 *
 * The runner is a static program, so that it starts on any Linux of its architecture, whatever the C library there. A
 * static program has no dlopen; this is the part of it that libvitc_model.so needs. */
#define _GNU_SOURCE
#include "vitc_loader.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vitc_sha256.h"

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, R_ABSOLUTE = R_X86_64_64, R_GLOBAL = R_X86_64_GLOB_DAT,
       R_JUMP = R_X86_64_JUMP_SLOT, R_RELATIVE = R_X86_64_RELATIVE };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64, R_ABSOLUTE = R_AARCH64_ABS64, R_GLOBAL = R_AARCH64_GLOB_DAT,
       R_JUMP = R_AARCH64_JUMP_SLOT, R_RELATIVE = R_AARCH64_RELATIVE };
#elif defined(__arm__)
enum { MACHINE = EM_ARM, R_ABSOLUTE = R_ARM_ABS32, R_GLOBAL = R_ARM_GLOB_DAT,
       R_JUMP = R_ARM_JUMP_SLOT, R_RELATIVE = R_ARM_RELATIVE };
#else
#error "vitc-run: unknown architecture"
#endif

enum { MOST_SEGMENTS = 32 };
/* Of linux/memfd.h and linux/fcntl.h, which not every C library brings. */
enum { CLOSE_ON_EXEC = 1, MAY_BE_SEALED = 2, NOT_A_PROGRAM = 8, ADD_SEALS = 1033, ALL_SEALS = 15 };
static const uintptr_t LARGEST = (uintptr_t)1 << 30;

struct vitc_library {
  uintptr_t base;
  ElfW(Phdr) segments[MOST_SEGMENTS];
  size_t segment_count;
  const ElfW(Sym) *symbols;
  size_t symbol_count;
  const char *strings;
  size_t string_bytes;
};

static void *fail(char *error, size_t size, const char *path, const char *reason) {
  snprintf(error, size, "%s: %s", path, reason);
  return NULL;
}

/* Whether `bytes` from `address` on, relative to the base, lie in one mapped segment that has `flags`. */
static int inside(const vitc_library *library, uintptr_t address, size_t bytes, uint32_t flags) {
  for (size_t i = 0; i < library->segment_count; i++) {
    const ElfW(Phdr) *segment = &library->segments[i];
    if (segment->p_type != PT_LOAD || (segment->p_flags & flags) != flags) continue;
    if (address >= segment->p_vaddr && address - segment->p_vaddr <= segment->p_memsz &&
        bytes <= segment->p_memsz - (address - segment->p_vaddr))
      return 1;
  }
  return 0;
}

static const char *name_of(const vitc_library *library, const ElfW(Sym) *symbol) {
  return symbol->st_name < library->string_bytes ? library->strings + symbol->st_name : "";
}

/* Whether a name can stand in a sentence on a terminal. */
static int printable(const char *name) {
  for (; *name; name++)
    if (*name <= ' ' || *name > '~') return 0;
  return 1;
}

static void *lookup(const vitc_library *library, const vitc_symbol *imports, uint32_t index,
                    int *weak) {
  const ElfW(Sym) *symbol = &library->symbols[index];
  *weak = ELF64_ST_BIND(symbol->st_info) == STB_WEAK;
  if (symbol->st_shndx != SHN_UNDEF) return (void *)(library->base + symbol->st_value);
  const char *name = name_of(library, symbol);
  for (const vitc_symbol *import = imports; import->name; import++)
    if (strcmp(import->name, name) == 0) return import->address;
  return NULL;
}

/* Apply one table of relocations; `explicit_addend` says whether its entries are Rela or Rel. */
static const char *relocate(vitc_library *library, const vitc_symbol *imports, uintptr_t table,
                            size_t bytes, int explicit_addend, char *text, size_t text_size) {
  size_t entry = explicit_addend ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
  const char *damaged = "its relocations are damaged";
  if (bytes && !inside(library, table, bytes, PF_R)) return damaged;
  for (size_t at = 0; at + entry <= bytes; at += entry) {
    ElfW(Rela) item = {0};
    memcpy(&item, (const void *)(library->base + table + at), entry);
    if (!inside(library, item.r_offset, sizeof(uintptr_t), PF_R | PF_W)) return damaged;
    void *place = (void *)(library->base + item.r_offset);
    uintptr_t addend = (uintptr_t)item.r_addend, value;
    if (!explicit_addend) memcpy(&addend, place, sizeof addend);
#if defined(__LP64__)
    uint32_t type = (uint32_t)ELF64_R_TYPE(item.r_info);
    uint32_t index = (uint32_t)ELF64_R_SYM(item.r_info);
#else
    uint32_t type = ELF32_R_TYPE(item.r_info), index = ELF32_R_SYM(item.r_info);
#endif
    if (type == R_RELATIVE) {
      value = library->base + addend;
      memcpy(place, &value, sizeof value);
      continue;
    }
    if (index >= library->symbol_count) return damaged;
    if (type != R_ABSOLUTE && type != R_GLOBAL && type != R_JUMP) {
      snprintf(text, text_size, "relocation type %u is not supported", type);
      return text;
    }
    int weak;
    void *address = lookup(library, imports, index, &weak);
    if (!address && !weak) {
      const char *name = name_of(library, &library->symbols[index]);
      if (!printable(name)) return "the name of a function it needs is damaged";
      snprintf(text, text_size, "it needs the function %s, which vitc-run does not offer", name);
      return text;
    }
    value = (uintptr_t)address + (type == R_ABSOLUTE ? addend : 0);
    memcpy(place, &value, sizeof value);
  }
  return NULL;
}

static int protection(uint32_t flags) {
  return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) |
         (flags & PF_X ? PROT_EXEC : 0);
}

/* A sealed copy of a file in memory, which nobody can overwrite while it runs; the file itself where the system has no
 * such memory, or does not let it be executed. Closes what it does not return. */
static int private_copy(int file, off_t bytes) {
  int copy = (int)syscall(SYS_memfd_create, "libvitc_model.so", CLOSE_ON_EXEC | MAY_BE_SEALED | NOT_A_PROGRAM);
  if (copy < 0) copy = (int)syscall(SYS_memfd_create, "libvitc_model.so", CLOSE_ON_EXEC | MAY_BE_SEALED);
  if (copy < 0) return file;
  static char block[1 << 16];
  ssize_t got = 1;
  for (off_t at = 0; at < bytes && got > 0; at += got) {
    got = pread(file, block, sizeof block, at);
    for (ssize_t put = 0, more; put < got; put += more)
      if ((more = write(copy, block + put, (size_t)(got - put))) <= 0) more = got = -1;
  }
  void *page = MAP_FAILED;
  if (got > 0 && fcntl(copy, ADD_SEALS, ALL_SEALS) == 0)
    page = mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, copy, 0);
  if (page == MAP_FAILED) {
    close(copy);
    return file;
  }
  munmap(page, 1);
  close(file);
  return copy;
}

static int has_digest(int file, size_t bytes, const char *digest) {
  void *data = bytes ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  if (data == MAP_FAILED) return 0;
  char found[SHA256_TEXT];
  sha256(data, bytes, found);
  munmap(data, bytes);
  return strcmp(found, digest) == 0;
}

vitc_library *vitc_library_open(const char *path, const char *digest, const vitc_symbol *imports, char *error,
                                size_t error_size) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(error, error_size, path, strerror(errno));
  struct stat status;
  ElfW(Ehdr) header;
  if (!fstat(file, &status) && S_ISREG(status.st_mode)) file = private_copy(file, status.st_size);
  if (fstat(file, &status) || !S_ISREG(status.st_mode)) {
    close(file);
    return fail(error, error_size, path, "not a file");
  }
  if (digest && !has_digest(file, (size_t)status.st_size, digest)) {
    close(file);
    return fail(error, error_size, path, "it was changed since it was compiled: its SHA-256 is not that of manifest.json");
  }
  if (pread(file, &header, sizeof header, 0) != sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    close(file);
    return fail(error, error_size, path, "not an ELF library");
  }
  ElfW(Phdr) segments[MOST_SEGMENTS];
  size_t count = header.e_phnum;
  if (header.e_machine != MACHINE || header.e_type != ET_DYN || count > MOST_SEGMENTS ||
      header.e_phoff > (size_t)status.st_size ||
      pread(file, segments, count * sizeof *segments, (off_t)header.e_phoff) !=
          (ssize_t)(count * sizeof *segments)) {
    close(file);
    return fail(error, error_size, path, "not a shared library for this architecture");
  }
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), span = 0;
  const ElfW(Phdr) *dynamic = NULL;
  for (size_t i = 0; i < count; i++) {
    const ElfW(Phdr) *segment = &segments[i];
    if (segment->p_type == PT_DYNAMIC) dynamic = segment;
    if (segment->p_type != PT_LOAD) continue;
    if (segment->p_offset > (size_t)status.st_size ||
        segment->p_filesz > (size_t)status.st_size - segment->p_offset) {
      close(file);
      return fail(error, error_size, path, "the file is truncated");
    }
    /* In order and on pages of their own, so that none is mapped over another. */
    if ((segment->p_vaddr & ~(page - 1)) < ((span + page - 1) & ~(page - 1)) ||
        segment->p_vaddr > LARGEST || segment->p_memsz > LARGEST ||
        segment->p_filesz > segment->p_memsz ||
        (segment->p_filesz < segment->p_memsz && !(segment->p_flags & PF_W))) {
      close(file);
      return fail(error, error_size, path, "its segments are damaged");
    }
    span = segment->p_vaddr + segment->p_memsz;
  }
  if (!dynamic || !span) {
    close(file);
    return fail(error, error_size, path, "not a shared library");
  }
  span = (span + page - 1) & ~(page - 1);
  void *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  vitc_library *library = calloc(1, sizeof *library);
  if (area == MAP_FAILED || !library) {
    close(file);
    return fail(error, error_size, path, "not enough memory to map it");
  }
  library->base = (uintptr_t)area;
  memcpy(library->segments, segments, count * sizeof *segments);
  library->segment_count = count;
  for (size_t i = 0; i < count; i++) {
    const ElfW(Phdr) *segment = &segments[i];
    if (segment->p_type != PT_LOAD) continue;
    uintptr_t start = library->base + segment->p_vaddr, first = start & ~(page - 1);
    uintptr_t file_end = start + segment->p_filesz, end = start + segment->p_memsz;
    uintptr_t mapped = segment->p_filesz ? (file_end + page - 1) & ~(page - 1) : first;
    int writable = protection(segment->p_flags);
    off_t offset = (off_t)(segment->p_offset - (start - first));
    if (segment->p_filesz &&
        mmap((void *)first, file_end - first, writable, MAP_PRIVATE | MAP_FIXED, file, offset) ==
            MAP_FAILED) {
      close(file);
      return fail(error, error_size, path, strerror(errno));
    }
    if (end > mapped && mmap((void *)mapped, end - mapped, writable,
                             MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) {
      close(file);
      return fail(error, error_size, path, strerror(errno));
    }
    if (segment->p_filesz && end > file_end)
      memset((void *)file_end, 0, (mapped < end ? mapped : end) - file_end);
  }
  close(file);

  uintptr_t rel = 0, rela = 0, jump = 0, sysv_hash = 0;
  size_t rel_bytes = 0, rela_bytes = 0, jump_bytes = 0;
  int jump_is_rela = 0;
  uintptr_t symbols = 0, strings = 0, start = 0;
  size_t start_bytes = 0;
  const ElfW(Dyn) *item = (const ElfW(Dyn) *)(library->base + dynamic->p_vaddr);
  size_t left = dynamic->p_memsz / sizeof *item;
  if (dynamic->p_vaddr % _Alignof(ElfW(Dyn)) ||
      !inside(library, dynamic->p_vaddr, dynamic->p_memsz, PF_R))
    return fail(error, error_size, path, "its dynamic table is damaged");
  for (; left && item->d_tag != DT_NULL; left--, item++) {
    uintptr_t pointer = item->d_un.d_ptr;
    switch (item->d_tag) {
      case DT_SYMTAB: symbols = pointer; break;
      case DT_STRTAB: strings = pointer; break;
      case DT_STRSZ: library->string_bytes = item->d_un.d_val; break;
      case DT_HASH: sysv_hash = pointer; break;
      case DT_REL: rel = pointer; break;
      case DT_RELSZ: rel_bytes = item->d_un.d_val; break;
      case DT_RELA: rela = pointer; break;
      case DT_RELASZ: rela_bytes = item->d_un.d_val; break;
      case DT_JMPREL: jump = pointer; break;
      case DT_PLTRELSZ: jump_bytes = item->d_un.d_val; break;
      case DT_PLTREL: jump_is_rela = item->d_un.d_val == DT_RELA; break;
      case DT_INIT_ARRAY: start = pointer; break;
      case DT_INIT_ARRAYSZ: start_bytes = item->d_un.d_val; break;
      default: break;
    }
  }
  if (!symbols || !strings || !sysv_hash)
    return fail(error, error_size, path, "it has no symbol table");
  uint32_t counts[2] = {0, 0}; /* buckets, and as many chains as symbols */
  if (inside(library, sysv_hash, sizeof counts, PF_R))
    memcpy(counts, (const void *)(library->base + sysv_hash), sizeof counts);
  library->symbol_count = counts[1];
  library->symbols = (const ElfW(Sym) *)(library->base + symbols);
  library->strings = (const char *)(library->base + strings);
  if (!counts[1] || counts[1] > LARGEST / sizeof(ElfW(Sym)) || symbols % _Alignof(ElfW(Sym)) ||
      !inside(library, symbols, counts[1] * sizeof(ElfW(Sym)), PF_R) || !library->string_bytes ||
      !inside(library, strings, library->string_bytes, PF_R) ||
      library->strings[library->string_bytes - 1])
    return fail(error, error_size, path, "its symbol table is damaged");
  char text[160];
  const char *problem = relocate(library, imports, rel, rel_bytes, 0, text, sizeof text);
  if (!problem) problem = relocate(library, imports, rela, rela_bytes, 1, text, sizeof text);
  if (!problem)
    problem = relocate(library, imports, jump, jump_bytes, jump_is_rela, text, sizeof text);
  if (problem) return fail(error, error_size, path, problem);
  if (start_bytes && !inside(library, start, start_bytes, PF_R))
    return fail(error, error_size, path, "its list of start functions is damaged");
  for (size_t at = 0; at + sizeof(void *) <= start_bytes; at += sizeof(void *)) {
    void (*function)(void);
    memcpy(&function, (const void *)(library->base + start + at), sizeof function);
    if (!inside(library, (uintptr_t)function - library->base, 1, PF_X))
      return fail(error, error_size, path, "its list of start functions is damaged");
    function();
  }
  return library;
}

void *vitc_library_symbol(const vitc_library *library, const char *name) {
  for (size_t i = 1; i < library->symbol_count; i++) {
    const ElfW(Sym) *symbol = &library->symbols[i];
    if (symbol->st_shndx != SHN_UNDEF && strcmp(name_of(library, symbol), name) == 0)
      return inside(library, symbol->st_value, 1, PF_X)
                 ? (void *)(library->base + symbol->st_value)
                 : NULL;
  }
  return NULL;
}
