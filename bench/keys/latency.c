/*
 * A PKCS#11 module that hands everything on to the one that LATENCY_MODULE names, and whose C_Sign takes LATENCY_US
 * microseconds in all, as that of a module across a network does: the other one's own time counts among them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION_POINTER(returnType, name) returnType(*name)
#define CK_CALLBACK_FUNCTION(returnType, name) returnType(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

static CK_FUNCTION_LIST real;
static CK_FUNCTION_LIST ours;
static long microseconds;

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR room) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += microseconds * 1000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  CK_RV answer = real.C_Sign(session, data, length, signature, room);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) continue;
  return answer;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  if (!ours.C_Sign) {
    const char *told = getenv("LATENCY_US");
    void *module = dlopen(getenv("LATENCY_MODULE"), RTLD_NOW);
    CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    CK_FUNCTION_LIST_PTR found;
    if (!told || !get || get(&found) != CKR_OK) return CKR_GENERAL_ERROR;
    microseconds = atol(told);
    real = *found;
    ours = *found;
    ours.C_Sign = sign;
    ours.C_GetFunctionList = C_GetFunctionList;
  }
  *list = &ours;
  return CKR_OK;
}
