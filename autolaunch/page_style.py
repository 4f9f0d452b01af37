"""The style and the script of the status page, as they stand in it.

Pure. Owns how the page looks and how it renews itself. The page's policy allows exactly these two texts, by digest.
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--dim:#5c6570;--ground:#f6f7f9;--sheet:#fff;--edge:#dfe3e8;
--good:#12753c;--bad:#b3261e;--busy:#855600;--weights:#3b6fd4;--activation:#b04fc0;--non_torch:#1d93a8;
--cudagraph:#d99a00;--kv_cache:#2f9e57;--outside:#8a6a52;--held:#c0392b;--rest:#c9cfd6}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--dim:#9aa4af;--ground:#111417;--sheet:#1a1e22;--edge:#2d343b;
--good:#5fd08d;--bad:#ff8a80;--busy:#f2b84b;--weights:#6f9cf0;--activation:#d07fe0;--non_torch:#4fc3d6;
--cudagraph:#f0b93a;--kv_cache:#5cc983;--outside:#b8977e;--held:#ff7b6e;--rest:#3b444d}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:46rem;margin:0 auto;padding:1rem}
header,section{background:var(--sheet);border:1px solid var(--edge);border-radius:.6rem;
padding:.9rem 1rem;margin:0 0 .9rem}
header{border-left:.4rem solid var(--dim)}
header.good{border-left-color:var(--good)}header.bad{border-left-color:var(--bad)}header.busy{border-left-color:var(--busy)}
header.good .phase{color:var(--good)}header.bad .phase{color:var(--bad)}header.busy .phase{color:var(--busy)}
h1{font-size:1.4rem;margin:0 0 .2rem;overflow-wrap:anywhere}h2{font-size:1rem;margin:0 0 .5rem}
p{margin:.2rem 0;overflow-wrap:anywhere}.phase{font-weight:600}.dim{color:var(--dim);font-size:.88rem}
.line{font-family:ui-monospace,monospace;max-height:6em;overflow:auto}
ol{list-style:none;margin:0;padding:0}
li{padding:.15rem 0 .55rem 1rem;border-left:2px solid var(--edge);position:relative;overflow-wrap:anywhere}
li::before{content:"";position:absolute;left:-.4rem;top:.5rem;width:.7rem;height:.7rem;border-radius:50%;background:var(--dim)}
li.good::before{background:var(--good)}li.bad::before{background:var(--bad)}li.busy::before{background:var(--busy)}
li.step::before{border-radius:0;transform:rotate(45deg) scale(.75)}
svg{display:block;width:100%;height:2.6rem;border-radius:.3rem;margin:.2rem 0 .6rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
td,th{padding:.2rem .3rem;text-align:left;border-bottom:1px solid var(--edge);overflow-wrap:anywhere;vertical-align:top}
th{font-weight:400;color:var(--dim);font-size:.82rem}td+td,th+th{text-align:right}
.memory td+td,.memory th+th{white-space:nowrap}
.sign{display:inline-block;width:.75em;height:.75em;border-radius:.15em;margin-right:.45em}
.weights{fill:var(--weights);background:var(--weights)}.activation{fill:var(--activation);background:var(--activation)}
.non_torch{fill:var(--non_torch);background:var(--non_torch)}.cudagraph{fill:var(--cudagraph);background:var(--cudagraph)}
.kv_cache{fill:var(--kv_cache);background:var(--kv_cache)}.held{fill:var(--held);background:var(--held)}
.rest{fill:var(--rest);background:var(--rest)}.outside{fill:var(--outside);background:var(--outside)}
pre{margin:.3rem 0 0;max-height:24rem;overflow:auto;white-space:pre-wrap;
overflow-wrap:anywhere;font:12px/1.45 ui-monospace,Menlo,Consolas,monospace}
code{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.86rem}
footer{color:var(--dim);font-size:.8rem;padding:0 .2rem}#lost{color:var(--bad)}
"""

SCRIPT = """
"use strict";
function atEnd(box){return box.scrollHeight-box.scrollTop-box.clientHeight<8}
function toEnd(){const box=document.querySelector("pre");if(box)box.scrollTop=box.scrollHeight}
async function renew(){
  if(document.hidden||!getSelection().isCollapsed)return;
  try{
    const answer=await fetch(location.pathname,{cache:"no-store",signal:AbortSignal.timeout(4000)});
    if(!answer.ok)throw answer.status;
    const fresh=new DOMParser().parseFromString(await answer.text(),"text/html");
    const old=document.querySelector("pre"),end=!old||atEnd(old),top=old?old.scrollTop:0,left=old?old.scrollLeft:0;
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.title=fresh.title;
    const box=document.querySelector("pre");
    if(box){box.scrollTop=end?box.scrollHeight:top;box.scrollLeft=left}
  }catch(_){document.getElementById("lost").hidden=false}
}
toEnd();
setInterval(renew,3000);
"""
