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
#include <unistd.h>

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

struct vitc_library {
  uintptr_t base;
  const ElfW(Sym) *symbols;
  size_t symbol_count;
  const char *strings;
};

static void *fail(char *error, size_t size, const char *path, const char *reason) {
  snprintf(error, size, "%s: %s", path, reason);
  return NULL;
}

static void *lookup(const vitc_library *library, const vitc_symbol *imports, uint32_t index,
                    int *weak) {
  const ElfW(Sym) *symbol = &library->symbols[index];
  *weak = ELF64_ST_BIND(symbol->st_info) == STB_WEAK;
  if (symbol->st_shndx != SHN_UNDEF) return (void *)(library->base + symbol->st_value);
  const char *name = library->strings + symbol->st_name;
  for (const vitc_symbol *import = imports; import->name; import++)
    if (strcmp(import->name, name) == 0) return import->address;
  return NULL;
}

/* Apply one table of relocations; `explicit_addend` says whether its entries are Rela or Rel. */
static const char *relocate(vitc_library *library, const vitc_symbol *imports, uintptr_t table,
                            size_t bytes, int explicit_addend, char *text, size_t text_size) {
  size_t entry = explicit_addend ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
  for (uintptr_t at = table; at < table + bytes; at += entry) {
    const ElfW(Rela) *item = (const ElfW(Rela) *)at;
    uintptr_t *place = (uintptr_t *)(library->base + item->r_offset);
    uintptr_t addend = explicit_addend ? (uintptr_t)item->r_addend : *place;
#if defined(__LP64__)
    uint32_t type = (uint32_t)ELF64_R_TYPE(item->r_info);
    uint32_t index = (uint32_t)ELF64_R_SYM(item->r_info);
#else
    uint32_t type = ELF32_R_TYPE(item->r_info), index = ELF32_R_SYM(item->r_info);
#endif
    if (type == R_RELATIVE) {
      *place = library->base + addend;
      continue;
    }
    if (type != R_ABSOLUTE && type != R_GLOBAL && type != R_JUMP) {
      snprintf(text, text_size, "relocation type %u is not supported", type);
      return text;
    }
    int weak;
    void *address = lookup(library, imports, index, &weak);
    if (!address && !weak) {
      snprintf(text, text_size, "it needs the function %s, which vitc-run does not offer",
               library->strings + library->symbols[index].st_name);
      return text;
    }
    *place = (uintptr_t)address + (type == R_ABSOLUTE ? addend : 0);
  }
  return NULL;
}

static int protection(uint32_t flags) {
  return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) |
         (flags & PF_X ? PROT_EXEC : 0);
}

vitc_library *vitc_library_open(const char *path, const vitc_symbol *imports, char *error,
                                size_t error_size) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(error, error_size, path, strerror(errno));
  struct stat status;
  ElfW(Ehdr) header;
  if (fstat(file, &status) || pread(file, &header, sizeof header, 0) != sizeof header ||
      memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    close(file);
    return fail(error, error_size, path, "not an ELF library");
  }
  ElfW(Phdr) segments[32];
  size_t count = header.e_phnum;
  if (header.e_machine != MACHINE || header.e_type != ET_DYN || count > 32 ||
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
    if (segment->p_offset + segment->p_filesz > (size_t)status.st_size) {
      close(file);
      return fail(error, error_size, path, "the file is truncated");
    }
    uintptr_t end = segment->p_vaddr + segment->p_memsz;
    if (end > span) span = end;
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
  for (size_t i = 0; i < count; i++) {
    const ElfW(Phdr) *segment = &segments[i];
    if (segment->p_type != PT_LOAD) continue;
    uintptr_t start = library->base + segment->p_vaddr, first = start & ~(page - 1);
    uintptr_t file_end = start + segment->p_filesz, end = start + segment->p_memsz;
    uintptr_t mapped = (file_end + page - 1) & ~(page - 1);
    int writable = protection(segment->p_flags);
    off_t offset = (off_t)(segment->p_offset - (start - first));
    if (segment->p_filesz &&
        mmap((void *)first, file_end - first, writable, MAP_PRIVATE | MAP_FIXED, file, offset) ==
            MAP_FAILED) {
      close(file);
      return fail(error, error_size, path, strerror(errno));
    }
    if (end <= file_end) continue;
    if (end > mapped && mapped >= first) {
      uintptr_t fresh = segment->p_filesz ? mapped : first;
      if (mmap((void *)fresh, end - fresh, writable, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1,
               0) == MAP_FAILED) {
        close(file);
        return fail(error, error_size, path, strerror(errno));
      }
    }
    if (segment->p_filesz) memset((void *)file_end, 0, (mapped < end ? mapped : end) - file_end);
  }
  close(file);

  uintptr_t rel = 0, rela = 0, jump = 0, sysv_hash = 0;
  size_t rel_bytes = 0, rela_bytes = 0, jump_bytes = 0;
  int jump_is_rela = 0;
  void (**start)(void) = NULL;
  size_t start_bytes = 0;
  for (const ElfW(Dyn) *item = (const ElfW(Dyn) *)(library->base + dynamic->p_vaddr);
       item->d_tag != DT_NULL; item++) {
    uintptr_t pointer = library->base + item->d_un.d_ptr;
    switch (item->d_tag) {
      case DT_SYMTAB: library->symbols = (const ElfW(Sym) *)pointer; break;
      case DT_STRTAB: library->strings = (const char *)pointer; break;
      case DT_HASH: sysv_hash = pointer; break;
      case DT_REL: rel = pointer; break;
      case DT_RELSZ: rel_bytes = item->d_un.d_val; break;
      case DT_RELA: rela = pointer; break;
      case DT_RELASZ: rela_bytes = item->d_un.d_val; break;
      case DT_JMPREL: jump = pointer; break;
      case DT_PLTRELSZ: jump_bytes = item->d_un.d_val; break;
      case DT_PLTREL: jump_is_rela = item->d_un.d_val == DT_RELA; break;
      case DT_INIT_ARRAY: start = (void (**)(void))pointer; break;
      case DT_INIT_ARRAYSZ: start_bytes = item->d_un.d_val; break;
      default: break;
    }
  }
  if (!library->symbols || !library->strings || !sysv_hash)
    return fail(error, error_size, path, "it has no symbol table");
  library->symbol_count = ((const uint32_t *)sysv_hash)[1];
  char text[160];
  const char *problem = relocate(library, imports, rel, rel_bytes, 0, text, sizeof text);
  if (!problem) problem = relocate(library, imports, rela, rela_bytes, 1, text, sizeof text);
  if (!problem)
    problem = relocate(library, imports, jump, jump_bytes, jump_is_rela, text, sizeof text);
  if (problem) return fail(error, error_size, path, problem);
  for (size_t i = 0; i < start_bytes / sizeof *start; i++) start[i]();
  return library;
}

void *vitc_library_symbol(const vitc_library *library, const char *name) {
  for (size_t i = 1; i < library->symbol_count; i++) {
    const ElfW(Sym) *symbol = &library->symbols[i];
    if (symbol->st_shndx != SHN_UNDEF && strcmp(library->strings + symbol->st_name, name) == 0)
      return (void *)(library->base + symbol->st_value);
  }
  return NULL;
}
