document.querySelectorAll("table.sortable").forEach(function(table){
 table.querySelectorAll("th").forEach(function(head,column){head.addEventListener("click",function(){
  var up=head.getAttribute("aria-sort")!=="ascending",body=table.tBodies[0];
  table.querySelectorAll("th").forEach(function(other){other.removeAttribute("aria-sort")});
  head.setAttribute("aria-sort",up?"ascending":"descending");
  var key=function(row){return row.cells[column].dataset.v||""};
  Array.from(body.rows).sort(function(a,b){var p=key(a),q=key(b),d;
   if((p==="")!==(q===""))return p===""?1:-1;
   d=head.classList.contains("n")?p-q:p.localeCompare(q);return up?d:-d}).forEach(function(row){body.append(row)})})})})
