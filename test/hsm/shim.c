/*
 * A PKCS#11 module that hands everything on to the one that SHIM_MODULE names, and misbehaves as the file SHIM_CONTROL
 * says, a word a line, read at each call:
 *   sign-delay=<ms>  sign-serial: one after another, as in a TPM  sign-stuck-once  sign-hang  sign-crash  sign-error=<CKR, decimal>  init-error=<CKR>  sessions=<most>
 *   sign-wrong: signs, and flips a bit  login-error=<CKR>  generate-error=<CKR>
 *   destroy-error=<CKR>: C_DestroyObject
 *   close-error=<CKR>: C_CloseAllSessions
 *   generate-twin=<CKA>: somebody else makes a key at the same time, by the same template but for this attribute
 *   open-crash: in C_OpenSession  find-error=<CKR>: C_FindObjects
 *   init-stale-once=<CKR>: C_SignInit answers so from then on, whatever is said, until the module starts anew
 *   login-hang: until it is no longer said
 *   login-noise: prints to standard output
 *   final-try: the token says that one more wrong PIN locks it
 *   login-free: the token wants no login, and takes an empty PIN for one
 *   nul-padded: its label, who made the token, its model and its serial number end in NULs where blanks belong
 *   others-error=<CKR>: C_GetTokenInfo, for tokens of another label than ca
 *   each-time=<0 or 1>: what keys answer for CKA_ALWAYS_AUTHENTICATE  each-time-error=<CKR>: all that they answer
 *   no-copyable: it knows no CKA_COPYABLE, as NSS  no-verify: it takes no CKA_VERIFY beside CKA_DECRYPT, as tpm2-pkcs11
 *   trouble: keys fail that are not to be copied, for another reason: it knows CKA_COPYABLE
 *   generate-error-once=<CKR>  generate-lost-once=<CKR>: the pair is made all the same
 *   oid-params: it takes CKA_EC_PARAMS only as an OID, as NSS
 *   no-edwards: it makes no Ed25519 keys
 *   not-local: CKA_LOCAL of every key is false, as in NSS
 *   max-sessions=<most>: the token says so, and fails for good when more are opened all the same
 * Each C_Login is a line of the file SHIM_LOGINS, when it begins.
 * A word that ends in "-once" (sign-error-once=…, init-error-once=…) is removed when it has acted.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
static int sessions;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The number behind a word of the control file, 1 for a bare word, -1 where it does not stand. */
static long told(const char *word) {
  const char *path = getenv("SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return -1;
  char line[128];
  long found = -1;
  size_t length = strlen(word);
  while (found < 0 && fgets(line, sizeof line, file)) {
    if (strncmp(line, word, length)) continue;
    if (line[length] == '=') found = atol(line + length + 1);
    else if (line[length] == '\n' || line[length] == 0) found = 1;
  }
  fclose(file);
  return found;
}

/* As told, and no longer told. */
static long toldOnce(const char *word) {
  pthread_mutex_lock(&lock);
  long found = told(word);
  if (found >= 0) unlink(getenv("SHIM_CONTROL"));
  pthread_mutex_unlock(&lock);
  return found;
}

static void padByNul(CK_UTF8CHAR *text, size_t length) {
  while (length > 0 && text[length - 1] == ' ') text[--length] = 0;
}

static CK_RV tokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
  CK_RV answer = real.C_GetTokenInfo(slot, info);
  long most = told("max-sessions");
  if (answer == CKR_OK && most >= 0) info->ulMaxSessionCount = (CK_ULONG)most;
  if (answer == CKR_OK && told("nul-padded") >= 0) {
    padByNul(info->label, sizeof info->label);
    padByNul(info->serialNumber, sizeof info->serialNumber);
    padByNul(info->manufacturerID, sizeof info->manufacturerID);
    padByNul(info->model, sizeof info->model);
  }
  long code = told("others-error");
  if (answer == CKR_OK && code >= 0 && strncmp((char *)info->label, "ca ", 3)) return (CK_RV)code;
  if (answer == CKR_OK && told("login-free") >= 0) info->flags &= ~CKF_LOGIN_REQUIRED;
  if (answer == CKR_OK && told("final-try") >= 0) info->flags |= CKF_USER_PIN_FINAL_TRY;
  return answer;
}

static CK_RV openSession(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR session) {
  if (told("open-crash") >= 0) raise(SIGSEGV);
  long most = told("sessions");
  long said = told("max-sessions");
  pthread_mutex_lock(&lock);
  int full = most >= 0 && sessions >= most;
  int bad = said >= 0 && sessions >= said;
  if (!full && !bad) sessions++;
  pthread_mutex_unlock(&lock);
  if (bad) return CKR_GENERAL_ERROR;
  if (full) return CKR_SESSION_COUNT;
  CK_RV answer = real.C_OpenSession(slot, flags, application, notify, session);
  if (answer != CKR_OK) {
    pthread_mutex_lock(&lock);
    sessions--;
    pthread_mutex_unlock(&lock);
  }
  return answer;
}

/* That it makes EC keys is said twice then. */
static CK_RV mechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list, CK_ULONG_PTR count) {
  CK_RV answer = real.C_GetMechanismList(slot, list, count);
  if (answer == CKR_OK && list && told("no-edwards") >= 0)
    for (CK_ULONG i = 0; i < *count; i++)
      if (list[i] == 0x1055) list[i] = CKM_EC_KEY_PAIR_GEN;
  return answer;
}

static CK_RV closeSession(CK_SESSION_HANDLE session) {
  CK_RV answer = real.C_CloseSession(session);
  if (answer == CKR_OK) {
    pthread_mutex_lock(&lock);
    sessions--;
    pthread_mutex_unlock(&lock);
  }
  return answer;
}

static CK_RV closeAllSessions(CK_SLOT_ID slot) {
  long code = told("close-error");
  if (code >= 0) return (CK_RV)code;
  return real.C_CloseAllSessions(slot);
}

static CK_RV logIn(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length) {
  FILE *logins = fopen(getenv("SHIM_LOGINS"), "a");
  if (logins) {
    fputs("C_Login\n", logins);
    fclose(logins);
  }
  if (told("login-noise") >= 0) {
    puts("C_Login");
    fflush(stdout);
  }
  while (told("login-hang") >= 0) usleep(20000);
  long code = told("login-error");
  if (code >= 0) return (CK_RV)code;
  if (length == 0 && told("login-free") >= 0) return real.C_Login(session, user, (CK_UTF8CHAR_PTR) "1234", 4);
  return real.C_Login(session, user, pin, length);
}

static CK_ATTRIBUTE_PTR isIn(CK_ATTRIBUTE_PTR half, CK_ULONG count, CK_ATTRIBUTE_TYPE type) {
  for (CK_ULONG i = 0; i < count; i++)
    if (half[i].type == type) return &half[i];
  return NULL;
}

static CK_RV generate(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR publicHalf, CK_ULONG publics, CK_ATTRIBUTE_PTR privateHalf, CK_ULONG privates, CK_OBJECT_HANDLE_PTR publicKey, CK_OBJECT_HANDLE_PTR privateKey) {
  long code = told("generate-error");
  if (code < 0) code = toldOnce("generate-error-once");
  if (code >= 0) return (CK_RV)code;
  if ((told("no-copyable") >= 0 || told("trouble") >= 0) && isIn(privateHalf, privates, CKA_COPYABLE)) return CKR_GENERAL_ERROR;
  if (told("no-verify") >= 0 && isIn(publicHalf, publics, CKA_VERIFY) && isIn(privateHalf, privates, CKA_DECRYPT)) return CKR_GENERAL_ERROR;
  CK_ATTRIBUTE_PTR params = isIn(publicHalf, publics, CKA_EC_PARAMS);
  if (told("oid-params") >= 0 && params && *(CK_BYTE *)params->pValue != 6) return CKR_DOMAIN_PARAMS_INVALID;
  CK_OBJECT_HANDLE other;
  code = toldOnce("generate-lost-once");
  if (code >= 0) return real.C_GenerateKeyPair(session, mechanism, publicHalf, publics, privateHalf, privates, &other, &other) ? CKR_DEVICE_REMOVED : (CK_RV)code;
  long differs = told("generate-twin");
  if (differs >= 0) {
    CK_ATTRIBUTE_PTR halves[] = {isIn(publicHalf, publics, differs), isIn(privateHalf, privates, differs)};
    void *given[] = {halves[0]->pValue, halves[1]->pValue};
    CK_BYTE theirs[64];
    memcpy(theirs, given[0], halves[0]->ulValueLen);
    theirs[0] ^= 1;
    halves[0]->pValue = halves[1]->pValue = theirs;
    real.C_GenerateKeyPair(session, mechanism, publicHalf, publics, privateHalf, privates, &other, &other);
    for (int i = 0; i < 2; i++) halves[i]->pValue = given[i];
  }
  return real.C_GenerateKeyPair(session, mechanism, publicHalf, publics, privateHalf, privates, publicKey, privateKey);
}

static CK_RV destroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object) {
  long code = told("destroy-error");
  if (code >= 0) return (CK_RV)code;
  return real.C_DestroyObject(session, object);
}

static CK_RV attributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR template, CK_ULONG count) {
  int asked = count == 1 && template[0].type == CKA_ALWAYS_AUTHENTICATE;
  long code = asked ? told("each-time-error") : -1;
  if (code >= 0) return (CK_RV)code;
  if (told("no-copyable") >= 0 && isIn(template, count, CKA_COPYABLE)) return CKR_ATTRIBUTE_TYPE_INVALID;
  CK_RV answer = real.C_GetAttributeValue(session, object, template, count);
  if (answer == CKR_OK && count == 1 && template[0].type == CKA_LOCAL && template[0].pValue && told("not-local") >= 0)
    *(CK_BBOOL *)template[0].pValue = CK_FALSE;
  long value = asked ? told("each-time") : -1;
  if (answer == CKR_OK && value >= 0 && template[0].pValue) *(CK_BBOOL *)template[0].pValue = (CK_BBOOL)value;
  return answer;
}

static CK_RV findObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR objects, CK_ULONG most, CK_ULONG_PTR count) {
  long code = told("find-error");
  if (code >= 0) return (CK_RV)code;
  return real.C_FindObjects(session, objects, most, count);
}

static CK_RV signInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key) {
  long code = told("init-error");
  if (code < 0) code = toldOnce("init-error-once");
  static long stale = -1;
  if (stale < 0) stale = toldOnce("init-stale-once");
  if (code < 0) code = stale;
  if (code >= 0) return (CK_RV)code;
  return real.C_SignInit(session, mechanism, key);
}

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR room) {
  long delay = told("sign-delay");
  static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
  int isSerial = told("sign-serial") >= 0;
  if (isSerial) pthread_mutex_lock(&turn);
  if (delay > 0) usleep((useconds_t)delay * 1000);
  if (isSerial) pthread_mutex_unlock(&turn);
  if (toldOnce("sign-stuck-once") >= 0) for (;;) pause();
  if (told("sign-crash") >= 0) raise(SIGSEGV);
  while (told("sign-hang") >= 0) usleep(20000);
  long code = told("sign-error");
  if (code < 0) code = toldOnce("sign-error-once");
  if (code >= 0) return (CK_RV)code;
  CK_RV answer = real.C_Sign(session, data, length, signature, room);
  if (answer == CKR_OK && signature && told("sign-wrong") >= 0) signature[*room / 2] ^= 1;
  return answer;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  if (!ours.C_Sign) {
    void *module = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    if (!module) return CKR_GENERAL_ERROR;
    CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList");
    CK_FUNCTION_LIST_PTR found;
    if (!get || get(&found) != CKR_OK) return CKR_GENERAL_ERROR;
    real = *found;
    ours = *found;
    ours.C_GetTokenInfo = tokenInfo;
    ours.C_GetMechanismList = mechanismList;
    ours.C_OpenSession = openSession;
    ours.C_CloseSession = closeSession;
    ours.C_CloseAllSessions = closeAllSessions;
    ours.C_Login = logIn;
    ours.C_GenerateKeyPair = generate;
    ours.C_DestroyObject = destroyObject;
    ours.C_GetAttributeValue = attributeValue;
    ours.C_FindObjects = findObjects;
    ours.C_SignInit = signInit;
    ours.C_Sign = sign;
    ours.C_GetFunctionList = C_GetFunctionList;
  }
  *list = &ours;
  return CKR_OK;
}
