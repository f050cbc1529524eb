/* A lock that names the process that holds it, so that a child of fork never waits for a thread of its parent. */
#ifndef VITC_LOCK_H
#define VITC_LOCK_H

#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef atomic_uint vitc_lock; /* 0 or a process */

/* The C library may keep the number from before a fork that it did not make. */
static inline unsigned vitc_process(void) { return (unsigned)syscall(SYS_getpid); }

/* Take the lock unless a thread of this process has it. Whoever else is named was a process that this one is a copy of. */
static inline int vitc_try_lock(vitc_lock *lock, unsigned process) {
  unsigned holder = atomic_load_explicit(lock, memory_order_relaxed);
  return holder != process &&
         atomic_compare_exchange_strong_explicit(lock, &holder, process, memory_order_acquire, memory_order_relaxed);
}

static inline void vitc_unlock(vitc_lock *lock) { atomic_store_explicit(lock, 0, memory_order_release); }

#endif
