// What Android's C library has and glibc lacks or does otherwise, of all that libexecutorch.so, libfbjni.so and libc++_shared.so ask
// for: with it a JVM on Linux runs them as they are on a phone. `java -agentpath:.../libc.so` loads it, and ExecuTorch behind it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// glibc's function of a name that is Android's here
#define GLIBC(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
// defines `name` without its declaration in glibc's headers
#define ANDROID(type, name, ...) \
  type android_##name(__VA_ARGS__) __asm__(#name); \
  type android_##name(__VA_ARGS__)

// JVM's agents are loaded first. RTLD_DEEPBIND: what is here comes before glibc. And libfbjni.so's exceptions are those of
// libexecutorch.so, which is the root, as on a phone; the unwinders of the two, years apart, cannot read each other's.
int Agent_OnLoad(void* vm, char* options, void* reserved) {
  (void)vm, (void)options, (void)reserved;
  if (dlopen("libexecutorch.so", RTLD_NOW | RTLD_DEEPBIND)) return 0;
  fprintf(stderr, "%s\n", dlerror());
  return 1;
}

int __xpg_strerror_r(int, char*, size_t);  // POSIX's, as Android has it
int* __errno(void) { return __errno_location(); }
ANDROID(int, strerror_r, int error, char* text, size_t size) { return __xpg_strerror_r(error, text, size); }
char* __gnu_strerror_r(int error, char* text, size_t size) { return GLIBC(strerror_r)(error, text, size); }

// other numbers than glibc's: _SC_PAGESIZE twice, then processors and pages
ANDROID(long, sysconf, int name) {
  switch (name) {
    case 39:
    case 40: return getpagesize();
    case 96: return GLIBC(sysconf)(_SC_NPROCESSORS_CONF);
    case 97: return GLIBC(sysconf)(_SC_NPROCESSORS_ONLN);
    case 98: return GLIBC(sysconf)(_SC_PHYS_PAGES);
    default: fprintf(stderr, "sysconf(%d) is not known here\n", name), abort();
  }
}

// sigset_t has 8 bytes, not 128
ANDROID(int, sigfillset, unsigned long* set) { return *set = ~0ul, 0; }
ANDROID(int, pthread_sigmask, int how, const unsigned long* set, unsigned long* before) {
  return syscall(SYS_rt_sigprocmask, how, set, before, sizeof *set) ? errno : 0;
}

// pthread_mutex_t has 40 bytes; glibc's has 48 on arm64, of which it uses no more
ANDROID(int, pthread_mutex_init, void* mutex, const pthread_mutexattr_t* attributes) {
  pthread_mutex_t whole;
  const int error = GLIBC(pthread_mutex_init)(&whole, attributes);
  memcpy(mutex, &whole, 40);
  return error;
}

// stdin, stdout and stderr of programs for older Androids
char __sF[3][152];
ANDROID(int, fflush, FILE* file) {
  FILE* const real[] = {stdin, stdout, stderr};
  for (int i = 0; i < 3; i++) if ((char*)file == __sF[i]) file = real[i];
  return GLIBC(fflush)(file);
}

size_t __strlen_chk(const char* text, size_t size) { return (void)size, strlen(text); }
char* __strchr_chk(const char* text, int character, size_t size) { return (void)size, strchr(text, character); }
char* __strrchr_chk(const char* text, int character, size_t size) { return (void)size, strrchr(text, character); }
ssize_t __write_chk(int file, const void* bytes, size_t count, size_t size) { return (void)size, write(file, bytes, count); }

int __android_log_vprint(int priority, const char* tag, const char* format, va_list values) {
  if (priority < 5) return 0;  // less than a warning
  fprintf(stderr, "%s: ", tag);
  const int count = vfprintf(stderr, format, values);
  fputc('\n', stderr);
  return count;
}
int __android_log_print(int priority, const char* tag, const char* format, ...) {
  va_list values;
  va_start(values, format);
  const int count = __android_log_vprint(priority, tag, format, values);
  va_end(values);
  return count;
}
int __android_log_write(int priority, const char* tag, const char* text) { return __android_log_print(priority, tag, "%s", text); }
void __android_log_assert(const char* condition, const char* tag, const char* format, ...) {
  fprintf(stderr, "%s: %s\n", tag, condition ? condition : format);
  abort();
}
void __assert2(const char* file, int line, const char* function, const char* text) {
  fprintf(stderr, "%s:%d: %s: %s\n", file, line, function, text);
  abort();
}
void android_set_abort_message(const char* text) { fprintf(stderr, "%s\n", text); }
int __system_property_get(const char* name, char* value) { return (void)name, *value = 0, 0; }
void __gcov_dump(void) {}
void __gcov_flush(void) {}
