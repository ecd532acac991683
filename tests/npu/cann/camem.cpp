/* Stands in for the memory of vllm-ascend's extension vllm_ascend_C: a pluggable allocator that tells Python of
   every allocation, and the functions that unmap and map one again (sleep mode).

   Read at vllm-project/vllm-ascend, tag v0.22.1rc1, csrc/camem_allocator.cpp; references below are to it. Python
   calls it through ctypes (packages/vllm_ascend_parts/vllm_ascend_C.py) and needs no headers of Python. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "acl/acl.h"

/* aclrtMemGetAllocationGranularity for huge pages (:138-149); the addresses of the stand-in have it, too. */
static constexpr size_t GRANULARITY = 2 << 20;

/* What Python keeps of an allocation (:118-127): device, bytes, address, address of the physical memory's handle. */
struct Handle {
  unsigned long long device, nbytes, address, physical;
};

using OnMalloc = int (*)(unsigned long long device, unsigned long long nbytes, unsigned long long address,
                         unsigned long long physical); /* 0 when it failed */
using OnFree = int (*)(unsigned long long address, Handle *handle);

static OnMalloc on_malloc;
static OnFree on_free;

/* Throw a std::runtime_error of the library that torch uses: a compiler from a wheel brings another. */
[[noreturn]] static void fail(const char *reason) {
  void *library = dlopen("libstdc++.so.6", RTLD_LAZY);
  auto *raise = library ? dlsym(library, "_ZSt21__throw_runtime_errorPKc") : nullptr;
  if (raise) reinterpret_cast<void (*)(const char *)>(raise)(reason);
  abort();
}

/* A failed call is an exception (:64-79, :88-98). From my_malloc it reaches torch. The functions that Python calls
   do not catch it (:277-323), so there it ends the process. */
static void check(const char *name, aclError code) {
  if (code == ACL_SUCCESS) return;
  char reason[200];
  const char *meaning = code == ACL_ERROR_RT_MEMORY_ALLOCATION ? "(OOM: Out of Memory, allocation failed)" : "";
  snprintf(reason, sizeof reason, "%s failed with acl error code: %d%s", name, code, meaning);
  fail(reason);
}

extern "C" {

/* :250-275 */
void camem_init(OnMalloc malloc_callback, OnFree free_callback) {
  on_malloc = malloc_callback;
  on_free = free_callback;
}

/* :49-80 */
void camem_create_and_map(unsigned long long device, unsigned long long nbytes, void *address,
                          aclrtDrvMemHandle *physical) {
  aclrtPhysicalMemProp wanted = {};
  wanted.handleType = ACL_MEM_HANDLE_TYPE_NONE;
  wanted.allocationType = ACL_MEM_ALLOCATION_TYPE_PINNED;
  wanted.memAttr = ACL_HBM_MEM_HUGE;
  wanted.location.id = static_cast<uint32_t>(device);
  wanted.location.type = ACL_MEM_LOCATION_TYPE_DEVICE;
  check("aclrtMallocPhysical", aclrtMallocPhysical(physical, nbytes, &wanted, 0));
  check("aclrtMapMem", aclrtMapMem(address, nbytes, 0, *physical, 0));
}

/* :82-99 */
void camem_unmap_and_release(void *address, aclrtDrvMemHandle *physical) {
  check("aclrtUnmapMem", aclrtUnmapMem(address));
  check("aclrtFreePhysical", aclrtFreePhysical(*physical));
}

/* :127-197 */
void *my_malloc(ssize_t size, int device, aclrtStream) {
  size_t nbytes = (static_cast<size_t>(size) + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
  void *address;
  check("aclrtReserveMemAddress", aclrtReserveMemAddress(&address, nbytes, 0, nullptr, 0));
  auto *physical = static_cast<aclrtDrvMemHandle *>(malloc(sizeof(aclrtDrvMemHandle)));
  if (!on_malloc) fail("my_malloc ERROR: g_python_malloc_callback not set.");
  if (!on_malloc(device, nbytes, reinterpret_cast<uintptr_t>(address), reinterpret_cast<uintptr_t>(physical)))
    return nullptr;
  camem_create_and_map(device, nbytes, address, physical);
  return address;
}

/* :199-248 */
void my_free(void *address, ssize_t, int, aclrtStream) {
  Handle handle;
  if (!on_free(reinterpret_cast<uintptr_t>(address), &handle)) return;
  auto *physical = reinterpret_cast<aclrtDrvMemHandle *>(handle.physical);
  camem_unmap_and_release(address, physical);
  check("aclrtReleaseMemAddress", aclrtReleaseMemAddress(address));
  free(physical);
}
}
