// Model 1: ghost writes. One block, logical writes 1..K in order (write k+1 is issued after GOOD of k, by anyone, on any path), paths A and B
// (targets), two owner candidates, PostgreSQL with the epoch guard, reads at any time at any process that believes it owns.
// Sent again (R9): whoever serves the next epoch says, when a nexus is resumed, which of its changes are durable and which were aborted; both
// are durable with what they tell of. The target sends what is neither in the new epoch. CTS: another initiator's CLEAR TASK SET.
// Hand-over: an owner finishes what is in its commit slot, refuses the rest, and gives its epoch up.
// Pause = a process is not scheduled (every check and the act after it are separate steps). Messages wait arbitrarily long, in any order
// (several connections per pair). Ages are discrete ticks: lease valid while age < L; a path may be given up when age of last PDU received >= TP.
#include "mc.hpp"
typedef uint8_t u8;
static int K=2,L=2,TP=2,EMAX=2,CR=1,LG=1,RS=1,TC=0,PGL=0,MM=3;       // bounds: writes, ticks, epochs, owner crashes, logins/path, resends, target crashes, PG losses
static int epochCheck=1,joinGuard=0,initLive=1,stamp=1,reqStamp=0,reinst=1,reqEpoch=1,dedup=1,lowWater=1,readLease=1,beforeReq=1,noResend=1,abortLate=1,
  selfCheck=1,lateResume=0,fastFail=0,willDrop=0,reads=1,waitLease=1,sessMono=1,red=1,conc=0,PB=1,selfOnly=0,revive=0,keepMarks=1,
  HO=0,CTS=0,RE=0,reDone=1,reAbort=1,reEvery=1;
struct Opt{const char*n;int*v;}; static Opt opts[]={{"K",&K},{"L",&L},{"TP",&TP},{"EMAX",&EMAX},{"CR",&CR},{"LG",&LG},{"RS",&RS},{"TC",&TC},{"PGL",&PGL},{"MM",&MM},
 {"epochCheck",&epochCheck},{"joinGuard",&joinGuard},{"initLive",&initLive},{"stamp",&stamp},{"reqStamp",&reqStamp},{"reinst",&reinst},{"reqEpoch",&reqEpoch},{"dedup",&dedup},
 {"lowWater",&lowWater},{"readLease",&readLease},{"beforeReq",&beforeReq},{"noResend",&noResend},{"abortLate",&abortLate},{"selfCheck",&selfCheck},
 {"lateResume",&lateResume},{"fastFail",&fastFail},{"willDrop",&willDrop},{"reads",&reads},{"waitLease",&waitLease},{"sessMono",&sessMono},{"red",&red},{"conc",&conc},{"PB",&PB},{"selfOnly",&selfOnly},{"revive",&revive},{"keepMarks",&keepMarks},
 {"HO",&HO},{"CTS",&CTS},{"RE",&RE},{"reDone",&reDone},{"reAbort",&reAbort},{"reEvery",&reEvery}};
struct Msg{u8 t,o,ep,p,s,q,k,age;};                                   // t: 0 none 1 WRITE 2 RESUME
struct Cmd{u8 v,p,s,q,k;};
struct Own{u8 st,ep,mem,lease,rb,rbs,serve,tx; Cmd cur,wait; u8 nx[2][2]; u8 acc[2][2],done[2][2],ab[2][2];}; // st 0 out,2 serving,3 lost PG,4 handing over; tx 0 none 1 sent 2 committed 3 failed 4 checked
struct Tgt{u8 alive,ts,cst,q,k,cep,co,ev,evEp,chk,nxEp,rs;};          // cst 0 none 1 to be sent 3 sent
struct S{u8 given,ho,cts,cs[2],cq[2]; u8 dbEp,dbOwn,dbLease,val; u8 dm[2][2],da[2][2]; u8 orpE[2],orpK[2],orpC[2],orpQ[2]; Own o[2]; Tgt t[2]; Msg m[4]; u8 aS[2],aQ[2],aK[2];
 u8 k,ist,ip,iq,sess[2],up[2],recv[2],nq[2],minv,rd,lb,acked,cr,tc,pgl,bad;};
static u8 inc(u8 a,int cap){return a<cap?a+1:a;}
static bool RED(){return red&&epochCheck&&!joinGuard&&reqEpoch&&!reads;}
static void norm(S&s){
 for(int p=0;p<2;p++){ Tgt&t=s.t[p]; if(!t.cst) t.q=t.k=t.cep=t.co=t.rs=0; if(stamp){ bool any=false; for(int i=0;i<2;i++) any|=s.o[i].st==2&&s.o[i].ep==t.evEp; if(!any){t.ev=L;t.evEp=0;} }
  if(!s.up[p]&&!(s.ist==3&&s.ip==p)) s.recv[p]=TP; for(int i=0;i<2;i++)for(int z=0;z<2;z++) if(!(revive&&keepMarks)&&s.o[i].nx[p][z]==9) s.o[i].acc[p][z]=s.o[i].done[p][z]=0; }
 if(s.ist!=1) s.iq=0; if(s.ist==0||s.ist==2) s.ip=0;
 for(int i=0;i<4;i++) if(stamp&&!reqStamp&&s.m[i].t==1) s.m[i].age=0;
 if(!reads){ s.dbLease=s.lb=0; s.minv=0; for(int i=0;i<2;i++){ s.o[i].lease=0; s.o[i].mem=0; if(stamp) s.o[i].serve=0; } if(RED()) s.dbOwn=0; }
 for(int i=0;i<3;i++)for(int j=0;j<3-i;j++) if(memcmp(&s.m[j],&s.m[j+1],sizeof(Msg))<0) std::swap(s.m[j],s.m[j+1]); }
static bool put(S&s,Msg m){ for(int i=0;i<MM;i++) if(!s.m[i].t){s.m[i]=m;return true;} return false; }
static void mark(S&s,const Cmd&c){ if(RE&&c.q>s.dm[c.p][c.s]) s.dm[c.p][c.s]=c.q; }
static void wr(S&s,const Cmd&c){ if(c.k<s.val) s.bad=1; s.val=c.k; mark(s,c); if(s.cts&&c.q&&c.s==s.cs[c.p]&&c.q<=s.cq[c.p]) s.bad=4; }
static u8 packed(const Cmd&c){ return RE?c.p|c.s<<1|c.q<<2:0; }
static void wrOrphan(S&s,u8 k,u8 x){ if(k<s.val) s.bad=1; s.val=k; mark(s,{1,(u8)(x&1),(u8)(x>>1&1),(u8)(x>>2),k}); }
static void outOwn(S&s,int i){ Own&o=s.o[i]; if(o.tx==1||o.tx==4){ for(int j=0;j<2;j++) if(!s.orpE[j]){s.orpE[j]=o.ep;s.orpK[j]=o.cur.k;s.orpQ[j]=packed(o.cur);s.orpC[j]=o.tx==4;break;} } memset(&o,0,sizeof o); }
enum A{TICK=1,ISSUE,REISSUE,PATHLOST,RST,LOGIN,SEND,RESEND,CHECK,RESUME,EVID,RENEWNX,RECVW,REFUSE,RECVR,TXSEND,TXCHK,TXRUN,TXREP,DELIVER,ABORT,CRASH,PGLOST,TAKE,LR1,LR2,LR3,RD,RDANS,ORPRUN,TCRASH,CONC,HAND,GIVE,ABORTED,CLEAR,HTAKE};
static bool live(const Own&o){return o.st==2;}
// A target hears that its request was refused as aborted.
static bool heard(S&n,int p,u8 z,u8 q,u8 ep){ Tgt&t=n.t[p]; if(!t.alive||t.ts!=z||t.cst!=3||t.q!=q||t.cep!=ep) return false; t.cst=0;
 if(n.ist==1&&n.ip==p&&n.iq==q&&n.up[p]&&n.sess[p]==z){n.ist=2;n.recv[p]=0;} return true; }
// A target hears what became of its change (R9).
static void resumed(S&n,int p,u8 ep){ Tgt&t=n.t[p]; if(!RE||!t.cst||(t.cst!=1&&t.cep>=ep)) return; u8 z=t.ts&1;
 if(t.cst==1&&!reEvery) return;
 if(t.cst!=1&&reDone&&n.dm[p][z]>=t.q){ n.aS[p]=t.ts;n.aQ[p]=t.q;n.aK[p]=t.k; t.cst=0; return; }
 if(reAbort&&n.da[p][z]>=t.q){ t.cst=0; if(n.ist==1&&n.ip==p&&n.iq==t.q&&n.up[p]&&n.sess[p]==t.ts){n.ist=2;n.recv[p]=0;} return; }
 t.cst=1; }
template<class E> static void succ(const S&s0,E emit){
 #define GO(a,x,y) {norm(n); emit(n,(uint32_t)((a)|((x)<<8)|((y)<<16)));}
 #define N S n=s0;
 const S&s=s0;
 { N // tick
  n.dbLease=inc(n.dbLease,L); for(int i=0;i<2;i++){Own&o=n.o[i]; if(o.st==2){o.lease=inc(o.lease,L); o.serve=inc(o.serve,L); if(o.rbs)o.rb=inc(o.rb,L);
    for(int p=0;p<2;p++)for(int z=0;z<2;z++) if(o.nx[p][z]>0&&o.nx[p][z]<9){o.nx[p][z]++; if(o.nx[p][z]>L) o.nx[p][z]=9;}}}
  for(int p=0;p<2;p++){ if(n.t[p].alive)n.t[p].ev=inc(n.t[p].ev,L); n.recv[p]=inc(n.recv[p],TP);} for(int i=0;i<4;i++) if(n.m[i].t)n.m[i].age=inc(n.m[i].age,L);
  if(memcmp(&n,&s,sizeof n)) GO(TICK,0,0) }
 // initiator
 if(s.ist==0&&s.k<K) for(int p=0;p<2;p++) if(s.up[p]&&!(s.k==0&&p==1)){ N n.k++; n.ist=1;n.ip=p;n.iq=++n.nq[p]; if(n.t[p].alive&&n.t[p].ts==n.sess[p]){n.t[p].cst=1;n.t[p].q=n.iq;n.t[p].k=n.k;n.t[p].rs=0;n.t[p].chk=n.t[p].chk;} GO(ISSUE,p,n.k) }
 if(s.ist==1){ int p=s.ip; if(s.recv[p]>=TP||willDrop){ N n.up[p]=0;n.ist=3; GO(PATHLOST,p,0) } }
 if(s.ist>=2) for(int p=0;p<2;p++) if(s.up[p]&&s.nq[p]<6){ bool ok= s.ist==2||p==s.ip||s.recv[s.ip]>=TP||fastFail; if(ok){ N n.ist=1;n.ip=p;n.iq=++n.nq[p]; if(n.t[p].alive&&n.t[p].ts==n.sess[p]){n.t[p].cst=1;n.t[p].q=n.iq;n.t[p].k=n.k;n.t[p].rs=0;} GO(REISSUE,p,n.k) } }
 for(int p=0;p<2;p++){
  const Tgt&t=s.t[p];
  if(s.up[p]&&(!t.alive||t.ts!=s.sess[p])){ N n.up[p]=0; if(n.ist==1&&n.ip==p)n.ist=3; GO(RST,p,0) }
  if(!s.up[p]&&s.sess[p]<LG) for(int o=0;o<2;o++) if(live(s.o[o])&&s.o[o].ep==s.dbEp){ N int z=++n.sess[p]; Tgt&t=n.t[p]; memset(&t,0,sizeof t); t.alive=1;t.ts=z;t.nxEp=n.o[o].ep;t.evEp=n.o[o].ep; n.up[p]=1;n.recv[p]=0;n.nq[p]=0; n.o[o].nx[p][z]=1;
    if(reinst) n.o[o].nx[p][0]=9; GO(LOGIN,p,o) }
  if(!t.alive) continue;
  if(s.tc<TC){ N memset(&n.t[p],0,sizeof(Tgt)); n.t[p].ts=9; n.tc++; GO(TCRASH,p,0) }
  for(int i=0;i<2;i++){ const Own&o=s.o[i]; if(!live(o)) continue;
   bool st=!stamp||t.evEp==o.ep; u8 a=stamp?t.ev:0;
   if(t.cst==1&&t.nxEp==o.ep&&st){ N if(put(n,{1,(u8)i,o.ep,(u8)p,t.ts,t.q,t.k,a})){ n.t[p].cst=3;n.t[p].cep=o.ep;n.t[p].co=i; GO(SEND,p,i) } }
   if(t.cst==3&&t.rs<RS&&t.nxEp==o.ep&&st&&((t.cep==o.ep&&t.co==i)||(!noResend&&o.ep>t.cep))){ N if(put(n,{1,(u8)i,o.ep,(u8)p,t.ts,t.q,t.k,a})){ n.t[p].rs++;n.t[p].cep=o.ep;n.t[p].co=i; GO(RESEND,p,i) } }
   if(t.nxEp<o.ep){ if(stamp){ if(t.evEp==o.ep){ N if(put(n,{2,(u8)i,o.ep,(u8)p,t.ts,0,0,t.ev})) GO(RESUME,p,i) } }
     else if(t.chk||!selfCheck){ N n.t[p].chk=0; if(put(n,{2,(u8)i,o.ep,(u8)p,t.ts,0,0,0})) GO(RESUME,p,i) } }
   if(s.up[p]&&t.ts==s.sess[p]){ N n.recv[p]=0;n.t[p].ev=0;n.t[p].evEp=stamp?o.ep:t.evEp; if(stamp){u8&y=n.o[i].nx[p][t.ts&1]; if(t.nxEp==o.ep&&y>0&&(y<9||revive)) y=1;} if(memcmp(&n,&s,sizeof n)) GO(EVID,p,i) }
   u8 x=o.nx[p][t.ts&1]; if(!stamp&&t.nxEp==o.ep&&x>0&&x<9){ N u8&y=n.o[i].nx[p][t.ts&1]; if(stamp){ if(t.evEp==o.ep&&t.ev<L&&t.ev+1<y)y=t.ev+1; } else if(!initLive||t.ev<L) y=1; if(y!=x) GO(RENEWNX,p,i) }
   if(!conc&&!RE&&t.cst==3&&o.ep>t.cep){ N n.t[p].cst=0; if(n.ist==1&&n.ip==p&&n.iq==t.q&&n.up[p]&&n.sess[p]==t.ts){n.ist=2;n.recv[p]=0;} GO(ABORT,p,i) }
  }
  if(!stamp&&selfCheck&&!t.chk&&t.ev<L&&t.nxEp<s.dbEp){ N n.t[p].chk=1; GO(CHECK,p,0) }
  if(abortLate!=1&&t.cst==3&&(abortLate==2||!(live(s.o[t.co])&&s.o[t.co].ep==t.cep))){ N n.t[p].cst=0; if(n.ist==1&&n.ip==p&&n.iq==t.q&&n.up[p]&&n.sess[p]==t.ts){n.ist=2;n.recv[p]=0;} GO(ABORT,p,2) }
  if(s.aK[p]){ N u8 z=n.aS[p],q=n.aQ[p],k=n.aK[p]; n.aS[p]=n.aQ[p]=n.aK[p]=0; if(t.ts==z){ if(n.t[p].q==q)n.t[p].cst=0; if(n.ist==1&&n.ip==p&&n.iq==q&&n.up[p]&&n.sess[p]==z){ n.ist=0;n.recv[p]=0;n.acked=k; if(n.minv<k)n.minv=k; if(n.val<k)n.bad=2; } } GO(DELIVER,p,k) }
 }
 // messages at owners
 for(int i=0;i<MM;i++) if(s.m[i].t){ const Msg m=s.m[i]; const Own&o=s.o[m.o]; if(i&&!memcmp(&s.m[i],&s.m[i-1],sizeof m)) continue;
  if(!live(o)) continue;
  N n.m[i]=Msg{}; Own&w=n.o[m.o]; bool ep=o.ep==m.ep||!reqEpoch; u8&x=w.nx[m.p][m.s];
  if(m.t==2){ bool closedNewer=sessMono&&m.s==0&&w.nx[m.p][1]; bool ok=o.ep==m.ep&&(x==0)&&!closedNewer&&(stamp? m.age<L : (lateResume||o.serve<L)); if(ok){ x=stamp?m.age+1:1; if(n.t[m.p].alive&&n.t[m.p].ts==m.s){ n.t[m.p].nxEp=o.ep; resumed(n,m.p,o.ep); } } GO(RECVR,m.o,ok) continue; }
  bool ok=ep&&x>0&&x<9&&(!reqStamp||m.age<L);
  if(!ok){ GO(REFUSE,m.o,m.k) continue; }
  if(CTS&&m.q<=w.ab[m.p][m.s]&&m.q>w.acc[m.p][m.s]){ heard(n,m.p,m.s,m.q,m.ep); GO(ABORTED,m.o,m.k) continue; }
  if(!stamp&&!initLive) x=1;
  if(dedup){ if(m.q==w.acc[m.p][m.s]){ if(w.done[m.p][m.s]==m.q){n.aS[m.p]=m.s;n.aQ[m.p]=m.q;n.aK[m.p]=m.k;} GO(RECVW,m.o,9) continue; } if(lowWater&&m.q<w.acc[m.p][m.s]){ GO(REFUSE,m.o,m.k) continue; } }
  Cmd c={1,m.p,m.s,m.q,m.k}; if(!w.cur.v){ w.cur=c; if(RED()) w.tx=1; } else if(!w.wait.v) w.wait=c; else continue;
  if(m.q>w.acc[m.p][m.s]) w.acc[m.p][m.s]=m.q; GO(RECVW,m.o,m.k) }
 // owners and the store
 for(int i=0;i<2;i++){ const Own&o=s.o[i];
  if(o.st==2&&s.ho<HO&&o.ep==s.dbEp){ N Own&w=n.o[i]; n.ho++; w.st=4; GO(HAND,i,0) }
  if(o.st==4){ // what is not being committed is refused; then the epoch is given up
   const Cmd c=o.wait.v?o.wait:(o.cur.v&&o.tx==0?o.cur:Cmd{});
   if(c.v){ N Own&w=n.o[i]; if(o.wait.v) w.wait=Cmd{}; else w.cur=Cmd{}; w.acc[c.p][c.s]=c.q-1; GO(REFUSE,i,c.k) }
   if(!o.cur.v&&!o.wait.v&&o.ep==s.dbEp){ N n.given=o.ep; memset(&n.o[i],0,sizeof(Own)); GO(GIVE,i,0) }
  }
  if(o.st==0&&s.given==s.dbEp&&s.dbEp<EMAX){ N n.given=0; n.dbEp++; n.dbOwn=i; n.dbLease=0; Own&w=n.o[i]; memset(&w,0,sizeof w); w.st=2;w.ep=n.dbEp;w.mem=n.val; if(RED()) n.dbOwn=0; GO(HTAKE,i,n.dbEp) }
  if(s.cts<CTS&&o.st==2&&o.ep==s.dbEp&&!o.cur.v&&!o.wait.v){ N n.cts++; for(int p=0;p<2;p++){ const Tgt&t=n.t[p]; if(!t.alive||!t.cst||(t.cst==1&&!RE)) continue; n.cs[p]=t.ts;n.cq[p]=t.q; if(RE) n.da[p][t.ts&1]=t.q; n.o[i].ab[p][t.ts&1]=t.q; } GO(CLEAR,i,0) }
  if(o.st==2||o.st==4){
   if(o.cur.v&&o.tx==0&&!RED()&&o.st==2){ N n.o[i].tx=1; GO(TXSEND,i,o.cur.k) }
   if(o.tx==1){ if(joinGuard){ N n.o[i].tx= o.ep==n.dbEp?4:3; GO(TXCHK,i,0) } else { N if(!epochCheck||o.ep==n.dbEp){ wr(n,o.cur); n.o[i].tx=2; } else n.o[i].tx=3; GO(TXRUN,i,o.cur.k) } }
   if(o.tx==4){ N wr(n,o.cur); n.o[i].tx=2; GO(TXRUN,i,o.cur.k) }
   if(o.tx==2){ N Own&w=n.o[i]; w.mem=w.cur.k; u8&d=w.done[w.cur.p][w.cur.s]; if(w.cur.q>d)d=w.cur.q; n.aS[w.cur.p]=w.cur.s;n.aQ[w.cur.p]=w.cur.q;n.aK[w.cur.p]=w.cur.k; w.cur=w.wait; memset(&w.wait,0,sizeof(Cmd)); w.tx=RED()&&w.cur.v?1:0; GO(TXREP,i,0) }
   if(o.tx==3){ N for(int j=0;j<4;j++) if(n.m[j].t&&n.m[j].o==i) n.m[j]=Msg{}; memset(&n.o[i],0,sizeof(Own)); GO(CRASH,i,1) }
   if(s.cr<CR){ N n.cr++; outOwn(n,i); for(int j=0;j<4;j++) if(n.m[j].t&&n.m[j].o==i) n.m[j]=Msg{}; GO(CRASH,i,0) }
   if(o.st==2&&s.pgl<PGL){ N n.pgl++; outOwn(n,i); n.o[i].st=3; GO(PGLOST,i,0) }
   if(o.st==2&&reads&&!o.rbs&&o.lease>0&&o.ep==s.dbEp){ N n.o[i].rbs=1;n.o[i].rb=0; GO(LR1,i,0) }
   if(o.rbs==1){ N if(n.dbEp==o.ep){n.dbLease=0;n.o[i].rbs=2;}else{n.o[i].rbs=0;n.o[i].rb=0;} GO(LR2,i,0) }
   if(o.rbs==2){ N n.o[i].lease=beforeReq?o.rb:0; n.o[i].rbs=0;n.o[i].rb=0; GO(LR3,i,0) }
   if(o.st==2&&s.rd&&(!readLease||o.lease<L)){ N if(o.mem<n.lb) n.bad=3; if(o.mem>n.minv)n.minv=o.mem; n.rd=0;n.lb=0; GO(RDANS,i,o.mem) }
  }
  if(!selfOnly&&RED()&&o.st==0&&(s.o[1-i].st==2||s.o[1-i].st==4)&&s.dbEp<EMAX){ for(int b=0;b<2;b++){ const Own&d=s.o[1-i]; if(b&&d.tx!=2) continue; N n.dbEp++; memset(&n.o[1-i],0,sizeof(Own)); for(int j=0;j<2;j++) n.orpE[j]=n.orpK[j]=n.orpC[j]=n.orpQ[j]=0; for(int j=0;j<4;j++) n.m[j]=Msg{};
     if(b){n.aS[d.cur.p]=d.cur.s;n.aQ[d.cur.p]=d.cur.q;n.aK[d.cur.p]=d.cur.k;} Own&w=n.o[i]; memset(&w,0,sizeof w); w.st=2;w.ep=n.dbEp;w.mem=n.val; GO(TAKE,i,n.dbEp) } }
  else if((o.st==3||(o.st==0&&!selfOnly))&&s.dbEp<EMAX&&(!reads||s.dbLease>=L||s.dbOwn==i||!waitLease)){ N n.dbEp++;n.dbOwn=i;n.dbLease=0; if(epochCheck&&!joinGuard) for(int j=0;j<2;j++) n.orpE[j]=n.orpK[j]=n.orpC[j]=n.orpQ[j]=0;
    Own&w=n.o[i]; memset(&w,0,sizeof w); w.st=2;w.ep=n.dbEp;w.mem=n.val; GO(TAKE,i,n.dbEp) }
 }
 for(int j=0;j<2;j++) if(s.orpE[j]){ N bool go=!epochCheck||s.orpC[j]||s.orpE[j]==s.dbEp; u8 k=s.orpK[j],x=s.orpQ[j]; n.orpE[j]=n.orpK[j]=n.orpC[j]=n.orpQ[j]=0; if(go) wrOrphan(n,k,x); GO(ORPRUN,j,k) }
 if(conc&&s.ist==1&&s.val==1&&s.k==1) for(int i=0;i<2;i++) if(live(s.o[i])&&s.o[i].ep==s.dbEp&&!s.o[i].cur.v){ N n.val=2; GO(CONC,i,0) }
 if(reads&&!s.rd){ N n.rd=1;n.lb=n.minv; GO(RD,0,0) }
}
static const char*nm[]={"","tick","initiator issues write on path","initiator retries write on path","initiator gives up path","initiator sees reset of path","fresh login at path","target sends WRITE","target re-sends WRITE","target self-check passes","target sends RESUME","initiator proves itself alive to target","target renews nexus at owner","owner takes WRITE from its socket","owner refuses WRITE","owner handles RESUME (y=granted)","owner sends commit","PG checks epoch","PG runs commit","owner hears of commit, answers","target delivers GOOD","target answers ABORTED COMMAND (new epoch)","owner gone/crashes","owner loses PG, takes itself over","takes over, new epoch","lease renewal begins","PG renews lease","owner hears of renewal","a read is sent","owner answers read","orphan commit arrives in PG","target crashes","a second initiator reads W1, then writes W2 and gets GOOD","owner begins to hand over","owner gives its epoch up","refused as aborted","another initiator's CLEAR TASK SET is done","takes over what was given up, new epoch"};
int main(int c,char**v){ double sec=240; uint64_t mx=100000000; const char*name="";
 for(int i=1;i<c;i++){ char*e=strchr(v[i],'='); if(!e){name=v[i];continue;} std::string k(v[i],e-v[i]); bool f=false; for(auto&o:opts) if(k==o.n){*o.v=atoi(e+1);f=true;} if(k=="sec"){sec=atof(e+1);f=true;} if(k=="max"){mx=atof(e+1);f=true;} if(!f){printf("unknown %s\n",v[i]);return 2;} }
 S s; memset(&s,0,sizeof s); s.dbEp=1; s.o[0].st=2;s.o[0].ep=1; for(int p=0;p<2;p++){s.o[0].nx[p][0]=1;s.t[p].alive=1;s.t[p].nxEp=1;s.t[p].evEp=1;s.up[p]=1;} if(!PB){memset(&s.t[1],0,sizeof(Tgt));s.up[1]=0;s.sess[1]=9;s.o[0].nx[1][0]=0;s.t[1].ts=9;}
 Checker<S> C; C.maxSec=sec;C.maxStates=mx; long r=C.run(s,[](const S&a,auto e){succ(a,e);},[](const S&a){return a.bad!=0;});
 const char*why[]={"","PG's value goes back (ghost or double)","GOOD without durable value","stale read","a change on its way took effect behind CLEAR TASK SET"};
 printf("%s: %s states=%zu steps=%llu depth=%u sizeof=%zu\n",name,r>=0?"VIOLATION":C.complete?"HOLDS (exhausted)":"HOLDS (bounded, not exhausted)",C.st.size(),(unsigned long long)C.steps,C.depth,sizeof(S));
 if(r>=0){ printf("  %s\n",why[C.st[r].bad]); int i=0; for(uint32_t x:C.path(r)){ uint32_t a=C.act[x]; const S&z=C.st[x]; printf("  %2d %s  [%d,%d]  epoch=%d pg=%d acked=%d\n",++i,nm[a&255],(a>>8)&255,(a>>16)&255,z.dbEp,z.val,z.acked);} }
 return r>=0;
}
