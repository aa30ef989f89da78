// Model 2: items, extents, objects. Two blocks. Every owner transaction is atomic (epoch guard: model 1); everything between transactions may be
// delayed without bound: agents, direct writers, compactor, collector and readers. A block's value is the version of its last write, 0 = zeros.
// A copy makes the extent of one block name the slot of the other (EXTENDED COPY within a volume, M11): es is the slot an extent names.
// After every step: for each block, item or else extent's object slot (bytes durable) or else zeros must equal the last committed write (I2, I5, I8).
#include "mc.hpp"
typedef uint8_t u8;
static int V=3,OB=3,MV=1,DW=1,CP=1,UM=1,RDR=1,OC=1,EX=1,CY=1,FULL=0;   // bounds: writes+unmaps, object ids, agents (max 2), direct writes, compactor, unmaps, reader, object server crashes, evictions, copies, FULL: full objects are compacted as well
static int moveVer=1,extVer=1,evictVer=1,sweepIntent=1,cmpExt=1,gcCheck=1,verMono=1,idOnce=1,syncFirst=1,scan=1,rereadAll=1,mapState=1,dwCover=1,intentFirst=1,retry=1,dwVer=0,cyDel=1,cyItem=1,cySrc=1,cyCount=1,cmpSlot=1;
struct Opt{const char*n;int*v;}; static Opt opts[]={{"V",&V},{"OB",&OB},{"MV",&MV},{"DW",&DW},{"CP",&CP},{"UM",&UM},{"RDR",&RDR},{"OC",&OC},{"EX",&EX},{"moveVer",&moveVer},{"extVer",&extVer},{"evictVer",&evictVer},
 {"sweepIntent",&sweepIntent},{"cmpExt",&cmpExt},{"gcCheck",&gcCheck},{"verMono",&verMono},{"idOnce",&idOnce},{"syncFirst",&syncFirst},{"scan",&scan},{"rereadAll",&rereadAll},{"mapState",&mapState},{"dwCover",&dwCover},{"intentFirst",&intentFirst},{"retry",&retry},{"dwVer",&dwVer},
 {"CY",&CY},{"FULL",&FULL},{"cyDel",&cyDel},{"cyItem",&cyItem},{"cySrc",&cySrc},{"cyCount",&cyCount},{"cmpSlot",&cmpSlot}};
enum{NONE,INT,LIVE,DEAD,GONE};
struct Job{u8 st,id,src,v[2],ver[2],ss[2];};           // st 0 idle 1 has work and id (intent committed) 2 put sent 3 put acknowledged; v value, ver item version (0 = block not in it), ss slot of the source
struct S{u8 it[2],iv[2],mv[2],ext[2],es[2],ost[5],by[5],ob[5][2],tr[2],nv,ni,um,dw,oc,cy,cyb,cyo,cys; Job mvr[2],d,c; u8 dver; u8 rst,rm[2],rs[2],rv[2],rf; uint64_t ok; u8 ev[2],bad;};
// it item value+1 (0 none), iv version, mv moved; by bytes 0/1 volatile/2 durable; ob slot value+1; tr truth; ev an eviction decided for version; cyb 1 + source of a copy that was decided on cyo, cys
static void okp(S&s){ if(s.rst) s.ok|=1ull<<(s.tr[0]*8+s.tr[1]); }
static void check(S&s){ for(int b=0;b<2;b++){ int v; if(s.it[b]) v=s.it[b]-1; else if(s.ext[b]){ int o=s.ext[b]; if(s.by[o]!=2){s.bad=2;return;} if(s.ost[o]!=LIVE){s.bad=3;return;} v=s.ob[o][s.es[b]]-1; } else v=0; if(v!=s.tr[b]) s.bad=1; }
 if(!scan) for(int o=1;o<=OB;o++) if(s.by[o]&&(s.ost[o]==GONE||s.ost[o]==NONE)) s.bad=4; }
static int newId(S&s){ if(!idOnce) for(int o=1;o<=OB;o++) if(s.ost[o]==INT) return o; if(s.ni>=OB) return 0; int o=++s.ni; s.ost[o]=intentFirst?INT:NONE; return o; }
static bool refd(const S&s,int o){ for(int b=0;b<2;b++) if(s.ext[b]==o&&(cyCount||s.es[b]==b)) return true; return false; }
static bool sparse(const S&s,int o){ int m=0; for(int b=0;b<2;b++) if(s.ext[b]==o) m|=1<<s.es[b]; return m&&(FULL||m!=3)&&s.ob[o][0]&&s.ob[o][1]; }
static bool mapOk(S&s,int o){ if(mapState&&s.ost[o]!=(intentFirst?INT:NONE)) return false; s.ost[o]=LIVE; return true; }
static void doPut(S&s,const Job&j){ for(int b=0;b<2;b++) s.ob[j.id][b]=j.ver[b]?j.v[b]+1:0; s.by[j.id]=1; }
enum A{WRITE=1,UNMAP,TAKEW,PUT,SYNC,ACK,MAP,DROP,EVDEC,EVDO,DWI,CTAKE,CMAP,DEADM,SWEEP,DEL,ROWDEL,SCAN,OCRASH,RASK,RFETCH,RMISS,TAKEOVER,COPY,CYDEC,CYDO};
template<class E> static void jobSteps(const S&s,Job S::*f,Job (S::*fa)[2],int ix,E emit,int who){
 auto J=[&](S&n)->Job&{return fa?(n.*fa)[ix]:n.*f;}; S n=s; Job j=J(n); if(!j.st) return;
 #define G(a,x,y) {okp(n);check(n);emit(n,(uint32_t)((a)|((x)<<8)|((y)<<16)));}
 if(j.st==1){ n=s; doPut(n,j); J(n).st=syncFirst?2:3; G(PUT,who,j.id) }
 if(j.st==2&&s.by[j.id]==2){ n=s; J(n).st=3; G(ACK,who,j.id) }
 if(j.st==2&&s.by[j.id]==0){ n=s; J(n).st=1; G(DROP,who,j.id) }
 { n=s; memset(&J(n),0,sizeof(Job)); G(DROP,who,9) }
}
template<class E> static void succ(const S&s,E emit){
 if(s.nv<V) for(int b=0;b<2;b++){ { S n=s; n.nv++; n.tr[b]=n.nv; if(dwVer==2&&n.d.st) n.dver=1; n.iv[b]=verMono?n.nv:(s.it[b]?s.iv[b]+1:1); n.it[b]=n.nv+1; n.mv[b]=0; G(WRITE,b,n.nv) }
  if(s.um<UM&&(s.it[b]||s.ext[b])){ S n=s; n.um++; n.tr[b]=0; if(dwVer==2&&n.d.st) n.dver=1; n.it[b]=0;n.iv[b]=0;n.mv[b]=0; n.ext[b]=n.es[b]=0; G(UNMAP,b,0) } }
 // copy of block b to the other one: a cached block as a new item under a new version, one in an object by a reference, zeros as zeros
 if(s.cy<CY&&!s.cyb) for(int b=0;b<2;b++){ int d=1-b; if(!s.it[b]&&!s.ext[b]) continue; bool ref=s.ext[b]&&(!s.it[b]||s.mv[b]||!cyItem);
  if(ref&&!cySrc){ S n=s; n.cy++; n.cyb=b+1; n.cyo=s.ext[b]; n.cys=s.es[b]; G(CYDEC,b,s.ext[b]) continue; }
  if(!ref&&s.nv>=V) continue; S n=s; n.cy++; n.tr[d]=s.tr[b]; if(dwVer==2&&n.d.st) n.dver=1;
  if(ref){ n.ext[d]=s.ext[b]; n.es[d]=s.es[b]; if(cyDel) n.it[d]=n.iv[d]=n.mv[d]=0; } else { n.nv++; n.iv[d]=verMono?n.nv:(s.it[d]?s.iv[d]+1:1); n.it[d]=s.it[b]; n.mv[d]=0; } G(COPY,b,ref?s.ext[b]:0) }
 if(s.cyb){ int b=s.cyb-1,d=1-b; S n=s; n.cyb=0; n.tr[d]=s.tr[b]; if(dwVer==2&&n.d.st) n.dver=1; n.ext[d]=s.cyo; n.es[d]=s.cys; n.cyo=n.cys=0; n.it[d]=n.iv[d]=n.mv[d]=0; G(CYDO,b,n.ext[d]) }
 for(int a=0;a<MV;a++){ const Job&j=s.mvr[a];
  if(!j.st) for(int m=1;m<4;m++){ bool ok=true; for(int b=0;b<2;b++) if((m>>b)&1) ok=ok&&s.it[b]&&!s.mv[b]; if(!ok||(m!=3&&s.it[0]&&!s.mv[0]&&s.it[1]&&!s.mv[1])) continue; S n=s; int o=newId(n); if(!o) continue; Job&k=n.mvr[a]; k.st=1;k.id=o; for(int b=0;b<2;b++) if((m>>b)&1){k.v[b]=s.it[b]-1;k.ver[b]=s.iv[b];} G(TAKEW,a,o) }
  jobSteps(s,(Job S::*)nullptr,&S::mvr,a,emit,a);
  if(j.st==3){ S n=s; if(mapOk(n,j.id)) for(int b=0;b<2;b++) if(j.ver[b]){ bool same=n.it[b]&&n.iv[b]==j.ver[b]; 
     if(same||!extVer) n.ext[b]=j.id,n.es[b]=b; if(same||(!moveVer&&n.it[b])) n.mv[b]=1; } memset(&n.mvr[a],0,sizeof(Job)); G(MAP,a,j.id) } }
 for(int b=0;b<2;b++) if(EX){ if(s.it[b]&&s.mv[b]&&!s.ev[b]&&!evictVer){ S n=s; n.ev[b]=s.iv[b]; G(EVDEC,b,0) } if(evictVer&&s.it[b]&&s.mv[b]){ S n=s; n.it[b]=n.iv[b]=n.mv[b]=0; G(EVDO,b,0) } if(!evictVer&&s.ev[b]){ S n=s; n.ev[b]=0; n.it[b]=n.iv[b]=n.mv[b]=0; G(EVDO,b,1) } }
 // direct write of both blocks
 if(DW&&!s.d.st&&s.dw<DW&&s.nv<V){ S n=s; n.dw++; n.nv++; int o=newId(n); if(o){ n.d.st=1;n.d.id=o;n.dver=0; for(int b=0;b<2;b++){n.d.v[b]=n.nv;n.d.ver[b]=n.nv;} G(DWI,o,n.nv) } }
 jobSteps(s,&S::d,(Job(S::*)[2])nullptr,0,emit,7);
 if(s.d.st==3){ S n=s; if((dwVer!=2||!s.dver)&&mapOk(n,s.d.id)) for(int b=0;b<2;b++){ 
    if(dwVer==1){ n.tr[b]= (s.it[b]&&s.iv[b]>s.d.ver[b])? s.tr[b] : s.d.v[b]; n.ext[b]=s.d.id; n.es[b]=b; if(s.it[b]&&s.iv[b]<s.d.ver[b]) n.it[b]=n.iv[b]=n.mv[b]=0; }
    else { n.tr[b]=s.d.v[b]; n.ext[b]=s.d.id; n.es[b]=b; if(dwCover) n.it[b]=n.iv[b]=n.mv[b]=0; } } memset(&n.d,0,sizeof(Job)); G(MAP,7,s.d.id) }
 // compaction of one object
 if(CP&&!s.c.st) for(int o=1;o<=OB;o++) if(s.ost[o]==LIVE&&sparse(s,o)){ S n=s; int i=newId(n); if(!i) continue; n.c.st=1;n.c.id=i;n.c.src=o; for(int b=0;b<2;b++) if(s.ext[b]==o){n.c.v[b]=s.ob[o][s.es[b]]-1;n.c.ver[b]=1;n.c.ss[b]=s.es[b];} G(CTAKE,o,i) }
 jobSteps(s,&S::c,(Job(S::*)[2])nullptr,0,emit,8);
 if(s.c.st==3){ S n=s; if(mapOk(n,s.c.id)) for(int b=0;b<2;b++) if(s.c.ver[b]&&(!cmpExt||n.ext[b]==s.c.src&&(!cmpSlot||n.es[b]==s.c.ss[b]))) n.ext[b]=s.c.id,n.es[b]=b; memset(&n.c,0,sizeof(Job)); G(CMAP,s.c.src,s.c.id) }
 // collector and object server
 for(int o=1;o<=OB;o++){
  if(s.ost[o]==LIVE&&(!gcCheck||!refd(s,o))){ S n=s; n.ost[o]=DEAD; G(DEADM,o,0) }
  if(s.ost[o]==INT){ S n=s; if(sweepIntent) n.ost[o]=DEAD; else { n.by[o]=0; memset(n.ob[o],0,2); } G(SWEEP,o,0) }
  if(s.ost[o]==DEAD&&s.by[o]){ S n=s; n.by[o]=0; memset(n.ob[o],0,2); G(DEL,o,0) }
  if(s.ost[o]==DEAD&&!s.by[o]){ S n=s; n.ost[o]=GONE; G(ROWDEL,o,0) }
  if(scan&&s.by[o]&&(s.ost[o]==GONE||s.ost[o]==NONE)){ S n=s; n.by[o]=0; memset(n.ob[o],0,2); G(SCAN,o,0) }
  if(s.by[o]==1){ S n=s; n.by[o]=2; G(SYNC,o,0) }
 }
 if(s.oc<OC){ bool any=false; for(int o=1;o<=OB;o++) any|=s.by[o]==1; if(any){ S n=s; n.oc++; for(int o=1;o<=OB;o++) if(n.by[o]==1){n.by[o]=0;memset(n.ob[o],0,2);} G(OCRASH,0,0) } }
 // reader of both blocks: rst 1 has map; rm[b] object or 0 (value known in rv[b]); rf bit b = fetched
 if(RDR){ auto ask=[&](S&n,int mask){ for(int b=0;b<2;b++) if((mask>>b)&1){ if(s.it[b]){n.rm[b]=n.rs[b]=0;n.rv[b]=s.it[b]-1;n.rf|=1<<b;} else if(s.ext[b]){n.rm[b]=s.ext[b];n.rs[b]=s.es[b];n.rf&=~(1<<b);n.rv[b]=0;} else {n.rm[b]=n.rs[b]=0;n.rv[b]=0;n.rf|=1<<b;} } };
  auto fin=[&](S&n){ if(n.rf==3){ if(!((n.ok>>(n.rv[0]*8+n.rv[1]))&1)) n.bad=5; n.rst=0;n.rf=0;n.ok=0;memset(n.rm,0,2);memset(n.rs,0,2);memset(n.rv,0,2);} };
  if(!s.rst){ if(s.ext[0]||s.ext[1]){ S n=s; n.rst=1; n.ok=0; okp(n); ask(n,3); fin(n); if(n.rst) G(RASK,0,0) } }
  else for(int b=0;b<2;b++) if(!((s.rf>>b)&1)){ int o=s.rm[b]; if(s.by[o]){ S n=s; int k0=s.rs[b]; n.rv[b]=s.ob[o][k0]?s.ob[o][k0]-1:7; n.rm[b]=n.rs[b]=0; n.rf|=1<<b; u8 k=n.rv[b]; if(k==7){n.bad=6;} else fin(n); G(RFETCH,b,k) }
   else { S n=s; if(!retry||s.ext[b]==o&&s.es[b]==s.rs[b]&&!s.it[b]) n.bad=7; else { okp(n); if(rereadAll){n.rf=0;ask(n,3);} else ask(n,1<<b); fin(n);} G(RMISS,b,o) } } }
}
static const char*nm[]={"","small write committed (block,value)","UNMAP committed (block)","agent takes work, intent committed (agent,object)","put sent (who: 0/1 agent 7 direct write 8 compactor, object)","object synced","put acknowledged","map transaction (who,object)","job gives up / put lost","evict decided (block)","item evicted (block)","direct write: id, version (object,value)","compactor takes object (src,new)","compaction map (src,new)","collector: live without references -> dead","sweeper: old intent","bytes deleted","row deleted","orphan scan deletes bytes without row","object server crashes, unsynced lost","reader asks map","reader fetches (block,value)","reader finds object missing, asks again (block,object)","takeover","copy to the other block (source, object or 0)","copy decided on the map (source,object)","copy: extent written (source,object)"};
int main(int c,char**v){ double sec=60; uint64_t mx=60000000; const char*name="";
 for(int i=1;i<c;i++){ char*e=strchr(v[i],'='); if(!e){name=v[i];continue;} std::string k(v[i],e-v[i]); bool f=false; for(auto&o:opts) if(k==o.n){*o.v=atoi(e+1);f=true;} if(k=="sec"){sec=atof(e+1);f=true;} if(k=="max"){mx=atof(e+1);f=true;} if(!f){printf("unknown %s\n",v[i]);return 2;} }
 S s; memset(&s,0,sizeof s); Checker<S> C; C.maxSec=sec;C.maxStates=mx; long r=C.run(s,[](const S&a,auto e){succ(a,e);},[](const S&a){return a.bad!=0;});
 const char*why[]={"","a block reads wrong: lost, stale or resurrected","extent refers to bytes that are not there","extent refers to an object whose row is not live","bytes without row that nobody finds (leak)","read is torn or stale","slot without the block","reader: object missing under an unchanged map"};
 printf("%s: %s states=%zu steps=%llu depth=%u\n",name,r>=0?"VIOLATION":C.complete?"HOLDS (exhausted)":"HOLDS (bounded, not exhausted)",C.st.size(),(unsigned long long)C.steps,C.depth);
 if(r>=0){ printf("  %s\n",why[C.st[r].bad]); int i=0; for(uint32_t x:C.path(r)){ uint32_t a=C.act[x]; const S&z=C.st[x]; printf("  %2d %s [%d,%d]  truth=%d,%d item=%d,%d ext=%d,%d\n",++i,nm[a&255],(a>>8)&255,(a>>16)&255,z.tr[0],z.tr[1],z.it[0]-1,z.it[1]-1,z.ext[0],z.ext[1]);} }
 return r>=0; }
